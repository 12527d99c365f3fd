"""Q4_K: 256 weights as 8 blocks of 32, w = d * scale * q - dmin * min; scale, min and q of 6, 6 and 4 bits.

Block (144 bytes): d f16, dmin f16, 12 bytes of packed scales and mins, 128 bytes of nibbles: byte i of the c-th 32
holds weight i of block 2c (low) and of block 2c + 1 (high).
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import ScaledSums, Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import add_pairs, fma, halves_to_float
from seventy.jit.types import f32, i32, u8, u16, u32


def unpack_scales(words: tuple[Value, Value, Value]) -> tuple[list[Value], list[Value]]:
    """The 12 packed bytes as words of four bytes each: scales 0-3 and 4-7, mins 0-3 and 4-7."""
    low, middle, high = (word.view(u32 * word.type.lanes) for word in words)
    scales = [low & 0x3F3F3F3F, (high & 0x0F0F0F0F) | ((low >> 2) & 0x30303030)]
    mins = [middle & 0x3F3F3F3F, ((high >> 4) & 0x0F0F0F0F) | ((middle >> 2) & 0x30303030)]
    return [s.view(words[0].type) for s in scales], [m.view(words[0].type) for m in mins]


def subtract_mins(tile: Tile, mins: list[Value]) -> list[Value]:
    """For each token the sum over the 8 blocks of min times the sum of its inputs, as floats."""

    def pair(m: Value, shift: int) -> Value:
        word = m.view(u32 * tile.lanes)
        return ((word >> shift if shift else word) & 0x00FF00FF).view(i32 * tile.lanes)

    pairs = [tile.keep(partial(pair, m, shift)) for m in mins for shift in (0, 8)]
    sums = []
    for t in range(tile.tokens):
        total = tile.zero()
        for unit, mins_of_two in enumerate(pairs):
            total = add_pairs(total, mins_of_two, tile.input(2, unit, t))
        sums.append(total.to(f32))
    return sums


def _nibbles(tile: Tile, index: int, high: int) -> Value:
    word = tile.word(index, first=not high).view(u32 * tile.lanes)
    return (word >> 4 if high else word) & 0x0F0F0F0F


def multiply(tile: Tile) -> None:
    scales, mins = unpack_scales((tile.word(0), tile.word(1), tile.word(2)))
    sums = ScaledSums(tile, limit=8, signed=False)
    for block in range(8):
        tile.f.keep_order()
        weights = [partial(_nibbles, tile, 3 + 8 * (block // 2) + g, block % 2) for g in range(8)]
        sums.add(weights, 8 * block, scales[block // 4], block % 4)
    d, dmin = tile.half(0), tile.half(1)
    for t, (total, minimum) in enumerate(zip(sums.floats(), subtract_mins(tile, mins), strict=True)):
        block_sum = total * d - minimum * dmin
        scale = tile.input(1, 0, t, f32)
        tile.totals[t].set(fma(block_sum, scale, tile.totals[t].get()))


def scale_and_min(f: Function, block: Value, j: int) -> tuple[Value, Value]:
    """Scale and min of sub-block j from the 12 bytes at `block` + 4, as f32 scalars."""

    def byte(i: int) -> Value:
        return f.load(u8, block, 4 + i)

    if j < 4:
        scale, minimum = byte(j) & 63, byte(j + 4) & 63
    else:
        scale = (byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4)
        minimum = (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4)
    return scale.to(f32), minimum.to(f32)


def expand(f: Function, block: Value, out: Value) -> None:
    d, dmin = (halves_to_float(f.load(u16, block, offset)) for offset in (0, 2))
    for j in range(8):
        scale, minimum = scale_and_min(f, block, j)
        factor, offset = (d * scale).splat(16), (dmin * minimum).splat(16)
        for i in range(2):
            q = f.load(u8 * 16, block, 16 + 32 * (j // 2) + 16 * i)
            q = q >> 4 if j % 2 else q & 15
            f.store(q.to(f32) * factor - offset, out, 4 * (32 * j + 16 * i))


def unpack_scales_numpy(packed: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[n, 12] packed bytes as scales and mins [n, 8]."""
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=1)
    mins = np.concatenate([middle & 63, (high >> 4) | (middle >> 6 << 4)], axis=1)
    return scales.astype(np.float32), mins.astype(np.float32)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, dmin = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    scales, mins = unpack_scales_numpy(blocks[:, 4:16])
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
    activation="q8_256",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
