"""Q4_K: 256 weights as 8 blocks of 32, w = d * scale * q - dmin * min; scale, min and q of 6, 6 and 4 bits.

Block (144 bytes): d f16, dmin f16, 12 bytes of packed scales and mins, 128 bytes of nibbles: byte i of the c-th 32
holds weight i of block 2c (low) and of block 2c + 1 (high).
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks, pick
from seventy.jit.build import Value


def word(fields: Fields, unit: int, shift: int) -> Value:
    return pick(fields.word(16 + 32 * (unit // 16) + 4 * (unit % 8)), 4 * (unit // 8 % 2), 4, shift)


def scales(fields: Fields) -> list[Value]:
    low, high = fields.word(4), fields.word(12)
    return [pick(low, 0, 6), pick(high, 0, 4) | pick(low, 6, 2, 4)]


def mins(fields: Fields) -> list[Value]:
    low, high = fields.word(8), fields.word(12)
    return [pick(low, 0, 6), pick(high, 4, 4) | pick(low, 6, 2, 4)]


def factors(fields: Fields) -> tuple[Value, ...]:
    return fields.half(0), fields.half(2)


def scales_numpy(packed: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unpack [n, 12] bytes to scales and mins, [n, 8] each."""
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=1)
    mins = np.concatenate([middle & 63, (high >> 4) | (middle >> 6 << 4)], axis=1)
    return scales.astype(np.float32), mins.astype(np.float32)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, dmin = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    scales, mins = scales_numpy(blocks[:, 4:16])
    nibbles = blocks[:, 16:].reshape(-1, 4, 1, 32)
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(-1, 8, 32).astype(np.float32)
    return ((d * scales)[..., None] * q - (dmin * mins)[..., None]).reshape(-1, 256)


FORMAT = Format(
    name="Q4_K",
    type_id=12,
    block=256,
    nbytes=144,
    halves=(0, 2),
    words=tuple(range(4, 144, 4)),
    weights=SuperBlocks(Quants(word, bits=4), 32, scales, factors, mins),
    dequantize=dequantize,
    set_factors=set_halves(0, 2),
)
