"""Q5_K: 256 weights as 8 blocks of 32, w = d * scale * q - dmin * min; scale, min and q of 6, 6 and 5 bits.

Block (176 bytes): d f16, dmin f16, 12 bytes of scales and mins as Q4_K packs them, 32 bytes of upper bits (bit j of
byte i is weight i's of block j), 128 bytes of nibbles: byte i of the c-th 32 holds weight i of block 2c (low) and of
block 2c + 1 (high).
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks, pick
from seventy.formats.q4_k import factors, mins, scales, scales_numpy
from seventy.jit.build import Value


def word(fields: Fields, unit: int, shift: int) -> Value:
    nibbles, upper = fields.word(48 + 32 * (unit // 16) + 4 * (unit % 8)), fields.word(16 + 4 * (unit % 8))
    return pick(nibbles, 4 * (unit // 8 % 2), 4, shift) | pick(upper, unit // 8, 1, 4 + shift)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, dmin = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    scales, mins = scales_numpy(blocks[:, 4:16])
    upper = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    nibbles = blocks[:, 48:].reshape(-1, 4, 1, 32)
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(-1, 8, 32) | upper << 4
    return ((d * scales)[..., None] * q.astype(np.float32) - (dmin * mins)[..., None]).reshape(-1, 256)


FORMAT = Format(
    name="Q5_K",
    type_id=13,
    block=256,
    nbytes=176,
    halves=(0, 2),
    words=tuple(range(4, 176, 4)),
    weights=SuperBlocks(Quants(word, bits=5), 32, scales, factors, mins),
    dequantize=dequantize,
    set_factors=set_halves(0, 2),
)
