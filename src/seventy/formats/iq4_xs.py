"""IQ4_XS: 256 weights as 8 blocks of 32, w = d * (scale - 32) * VALUES[q]; scale of 6 bits, q of 4.

Block (136 bytes): d f16, 16 bits with the upper bit pairs of the 8 scales, 4 bytes with their low nibbles (scale 2i
low, 2i + 1 high), 128 bytes of nibbles: byte i of the b-th 16 holds weight i of block b (low) and weight 16 + i
(high). VALUES are IQ4_NL's.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.iq4_nl import VALUES, looked_up
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float, lookup16
from seventy.jit.types import f32, i32, u8, u16, u32


def _scale(pairs: Value, nibbles: Value, block: int, integer: bool) -> Value:
    """Scale `block` less 32 for each row: in both 16-bit halves of a lane, or a float."""
    low = (nibbles >> (4 * block)) & 15
    high = pairs << (4 - 2 * block) if block < 2 else pairs >> (2 * block - 4)
    scale = (low | (high & 0x30)).view(i32 * low.type.lanes) - 32
    return (scale & 0xFFFF) | (scale << 16) if integer else scale.to(f32)


def multiply(tile: Tile) -> None:
    pairs, nibbles = tile.raw_half(1).to(u32), tile.word(0).view(u32 * tile.lanes)
    integer = tile.f.isa.dot == "maddubs"
    sums = [tile.zero(i32 if integer else f32)] * tile.tokens
    for block in range(8):
        tile.f.keep_order()
        scale = tile.keep(partial(_scale, pairs, nibbles, block, integer))
        if integer:
            sums = tile.signed_dots(looked_up(tile, 1 + 4 * block, 0), 8 * block, scale, sums)
            continue
        # Values + 128 are unsigned; each sum starts at -128 times the sum of its inputs.
        start = [(tile.input(3, 2 * block, t) + tile.input(3, 2 * block + 1, t)) << 2 for t in range(tile.tokens)]
        for t, dot in enumerate(tile.dots(looked_up(tile, 1 + 4 * block, 128), 8 * block, start)):
            sums[t] = fma(dot.to(f32), scale, sums[t])
    d = tile.half(0)
    for t, total in enumerate(sums):
        tile.totals[t].set(fma(total.to(f32) * d, tile.input(1, 0, t, f32), tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    d = halves_to_float(f.load(u16, block))
    pairs = f.load(u16, block, 2)
    for b in range(8):
        nibble = f.load(u8, block, 4 + b // 2)
        low = (nibble >> 4 if b % 2 else nibble & 15).to(u16)
        scale = low | (((pairs >> (2 * b)) & 3) << 4)
        factor = (d * (scale.to(i32) - 32).to(f32)).splat(16)
        q = f.load(u8 * 16, block, 8 + 16 * b)
        for i, part in enumerate((q & 15, q >> 4)):
            f.store(lookup16(part, VALUES).to(f32) * factor, out, 4 * (32 * b + 16 * i))


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    pairs = blocks[:, 2:4].copy().view(np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16)
    nibbles = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    scales = (nibbles | (pairs & 3) << 4).astype(np.float32) - 32
    packed = blocks[:, 8:].reshape(-1, 8, 16)
    values = np.array(VALUES, np.float32)[np.concatenate([packed & 15, packed >> 4], axis=2)]
    return ((d * scales)[..., None] * values).reshape(-1, 256)


FORMAT = Format(
    name="IQ4_XS",
    type_id=23,
    block=256,
    nbytes=136,
    halves=(0, 2),
    words=tuple(range(4, 136, 4)),
    activation="q8_256",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
