"""Q2_K: 256 weights as 16 blocks of 16, w = d * scale * q - dmin * min; scale and min of 4 bits, q of 2.

Block (84 bytes): 16 bytes of scales (low nibble) and mins (high), 64 bytes of bit pairs, d f16, dmin f16. In the n-th
half of 128 weights, weight 32 j + i has its bit pair j in byte 32 n + i.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks, pick
from seventy.jit.build import Value

# Sub-blocks that share words follow each other.
ORDER = tuple(8 * n + 2 * j + part for n in range(2) for part in range(2) for j in range(4))


def word(fields: Fields, unit: int, shift: int) -> Value:
    return pick(fields.word(16 + 32 * (unit // 32) + 4 * (unit % 8)), 2 * (unit // 8 % 4), 2, shift)


def scales(fields: Fields) -> list[Value]:
    return [pick(fields.word(4 * i), 0, 4) for i in range(4)]


def mins(fields: Fields) -> list[Value]:
    return [pick(fields.word(4 * i), 4, 4) for i in range(4)]


def factors(fields: Fields) -> tuple[Value, ...]:
    return fields.half(80), fields.half(82)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, dmin = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (80, 82))
    factors, offsets = d * (blocks[:, :16] & 15).astype(np.float32), dmin * (blocks[:, :16] >> 4).astype(np.float32)
    q = (blocks[:, 16:80].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3
    return (factors[..., None] * q.reshape(-1, 16, 16).astype(np.float32) - offsets[..., None]).reshape(-1, 256)


FORMAT = Format(
    name="Q2_K",
    type_id=10,
    block=256,
    nbytes=84,
    halves=(80, 82),
    words=tuple(range(0, 80, 4)),
    weights=SuperBlocks(Quants(word, bits=2), 16, scales, factors, mins, order=ORDER),
    dequantize=dequantize,
    set_factors=set_halves(80, 82),
)
