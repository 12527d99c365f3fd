"""Q6_K: 256 weights as 16 blocks of 16, w = d * scale * (q - 32); scale a signed byte, q of 6 bits.

Block (210 bytes): 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 scales, d f16. In each half of 128
weights, weight 32 j + i has its nibble in byte 32 (j % 2) + i (low for j < 2) and its bit pair j in byte i.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks, pick
from seventy.jit.build import Value


def word(fields: Fields, unit: int, shift: int) -> Value:
    n, j, i = unit // 32, unit // 8 % 4, unit % 8
    nibbles, pairs = fields.word(64 * n + 32 * (j % 2) + 4 * i), fields.word(128 + 32 * n + 4 * i)
    return pick(nibbles, 4 * (j // 2), 4, shift) | pick(pairs, 2 * j, 2, 4 + shift)


def scales(fields: Fields) -> list[Value]:
    return [fields.word(192 + 4 * i) for i in range(4)]


def factors(fields: Fields) -> tuple[Value, ...]:
    return (fields.half(208),)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, 208:210].copy().view(np.float16).astype(np.float32)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    low = blocks[:, :128].reshape(-1, 2, 1, 2, 32)
    nibbles = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    q = (nibbles | (high & 3) << 4).astype(np.float32) - 32
    return (q.reshape(-1, 16, 16) * (d * scales)[..., None]).reshape(-1, 256)


def _order() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sub-blocks that share words follow each other; the words in that order, the scales first."""
    sub_blocks, words = [], list(range(192, 208, 4))
    for n in range(2):
        for part in range(2):
            sub_blocks += [8 * n + 2 * j + part for j in (0, 2, 1, 3)]
            for i in range(4 * part, 4 * part + 4):
                words += [64 * n + 4 * i, 64 * n + 32 + 4 * i, 128 + 32 * n + 4 * i]
    return tuple(sub_blocks), tuple(words)


_ORDER, _WORDS = _order()
FORMAT = Format(
    name="Q6_K",
    type_id=14,
    block=256,
    nbytes=210,
    halves=(208,),
    words=_WORDS,
    weights=SuperBlocks(Quants(word, bits=6, offset=32), 16, scales, factors, signed=True, order=_ORDER),
    dequantize=dequantize,
    set_factors=set_halves(208),
)
