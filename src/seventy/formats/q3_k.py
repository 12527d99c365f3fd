"""Q3_K: 256 weights as 16 blocks of 16, w = d * (scale - 32) * (q - 4); scale of 6 bits, q of 3.

Block (110 bytes): 32 bytes of upper bits, 64 bytes of lower bit pairs, 12 bytes of scales, d f16. In the n-th half of
128 weights, weight 32 j + i has its bit pair j in byte 32 n + i and its upper bit 4 n + j in byte i. The low nibble
of scale k is that of byte k (k < 8) or the high one of byte k - 8; its upper bit pair k // 4 is in byte 8 + k % 4.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks, pick
from seventy.formats.q2_k import ORDER
from seventy.jit.build import Value
from seventy.jit.simd import as_bytes


def word(fields: Fields, unit: int, shift: int) -> Value:
    j = unit // 8
    upper, pairs = fields.word(4 * (unit % 8)), fields.word(32 + 32 * (j // 4) + 4 * (unit % 8))
    return pick(pairs, 2 * (j % 4), 2, shift) | pick(upper, j, 1, 2 + shift)


def scales(fields: Fields) -> list[Value]:
    low, middle, pairs = (fields.word(96 + 4 * i) for i in range(3))
    nibbles = (pick(word, first, 4) for first in (0, 4) for word in (low, middle))
    words = [nibble | pick(pairs, 2 * i, 2, 4) for i, nibble in enumerate(nibbles)]
    return [(as_bytes(word) - 32).view(word.type) for word in words]


def factors(fields: Fields) -> tuple[Value, ...]:
    return (fields.half(108),)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, 108:110].copy().view(np.float16).astype(np.float32)
    packed = blocks[:, 96:108]
    nibbles = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    pairs = (packed[:, None, 8:] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3
    scales = (nibbles | pairs.reshape(-1, 16) << 4).astype(np.float32) - 32
    low = (blocks[:, 32:96].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3
    high = (blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    q = (low.reshape(-1, 8, 32) | high << 2).astype(np.float32) - 4
    return (q.reshape(-1, 16, 16) * (d * scales)[..., None]).reshape(-1, 256)


FORMAT = Format(
    name="Q3_K",
    type_id=11,
    block=256,
    nbytes=110,
    halves=(108,),
    # The scales first, as a product reads them.
    words=(*range(96, 108, 4), *range(0, 96, 4)),
    weights=SuperBlocks(Quants(word, bits=3, offset=4), 16, scales, factors, signed=True, order=ORDER),
    dequantize=dequantize,
    set_factors=set_halves(108),
)
