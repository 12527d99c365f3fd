"""Q5_K: 256 weights as 8 blocks of 32, w = d * scale * q - dmin * min; scale, min and q of 6, 6 and 5 bits.

Block (176 bytes): d f16, dmin f16, 12 bytes of scales and mins as Q4_K packs them, 32 bytes of upper bits (bit j of
byte i is weight i's of block j), 128 bytes of nibbles: byte i of the c-th 32 holds weight i of block 2c (low) and of
block 2c + 1 (high).
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.q4_k import scale_and_min, subtract_mins, unpack_scales, unpack_scales_numpy
from seventy.formats.tile import ScaledSums, Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, u8, u16, u32


def _weights(tile: Tile, block: int, g: int) -> Value:
    nibbles = tile.word(11 + 8 * (block // 2) + g, first=block % 2 == 0).view(u32 * tile.lanes)
    upper = tile.word(3 + g, first=block == 0).view(u32 * tile.lanes)
    # Bit `block` of each byte goes to bit 4.
    moved = upper >> (block - 4) if block > 4 else upper << (4 - block) if block < 4 else upper
    return ((nibbles >> 4 if block % 2 else nibbles) & 0x0F0F0F0F) | (moved & 0x10101010)


def multiply(tile: Tile) -> None:
    scales, mins = unpack_scales((tile.word(0), tile.word(1), tile.word(2)))
    sums = ScaledSums(tile, limit=4, signed=False)
    for block in range(8):
        tile.f.keep_order()
        weights = [partial(_weights, tile, block, g) for g in range(8)]
        sums.add(weights, 8 * block, scales[block // 4], block % 4)
    d, dmin = tile.half(0), tile.half(1)
    for t, (total, minimum) in enumerate(zip(sums.floats(), subtract_mins(tile, mins), strict=True)):
        block_sum = total * d - minimum * dmin
        tile.totals[t].set(fma(block_sum, tile.input(1, 0, t, f32), tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    d, dmin = (halves_to_float(f.load(u16, block, offset)) for offset in (0, 2))
    for j in range(8):
        scale, minimum = scale_and_min(f, block, j)
        factor, offset = (d * scale).splat(16), (dmin * minimum).splat(16)
        for i in range(2):
            nibbles = f.load(u8 * 16, block, 48 + 32 * (j // 2) + 16 * i)
            upper = (f.load(u8 * 16, block, 16 + 16 * i) >> j) & 1
            q = (nibbles >> 4 if j % 2 else nibbles & 15) | (upper << 4)
            f.store(q.to(f32) * factor - offset, out, 4 * (32 * j + 16 * i))


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, dmin = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    scales, mins = unpack_scales_numpy(blocks[:, 4:16])
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
    activation="q8_256",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
