"""Q4_0: 32 weights, w = d * (q - 8); q of 4 bits.

Block (18 bytes): d f16, 16 bytes of nibbles: byte i holds weight i (low) and weight 16 + i (high).
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, i8, u8, u16, u32


def multiply(tile: Tile) -> None:
    words = [tile.word(g).view(u32 * tile.lanes) for g in range(4)]
    # Sixteen times the product: the input section's -128 times its sum is then the offset of 8.
    start = [tile.input(3, 0, t) for t in range(tile.tokens)]
    if tile.f.isa.dot == "maddubs":
        weights = [word & 0x0F0F0F0F for word in words] + [(word >> 4) & 0x0F0F0F0F for word in words]
        dots = [(dot << 4) + offset for dot, offset in zip(tile.dots(weights, 0), start, strict=True)]
    else:
        weights = [(word << 4) & 0xF0F0F0F0 for word in words] + [word & 0xF0F0F0F0 for word in words]
        dots = tile.dots(weights, 0, start)
    d = tile.half(0) * (1 / 16)
    for t, dot in enumerate(dots):
        scaled = dot.to(f32) * tile.input(1, 0, t, f32)
        tile.totals[t].set(fma(scaled, d, tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    d = halves_to_float(f.load(u16, block)).splat(16)
    q = f.load(u8 * 16, block, 2)
    for i, nibble in enumerate((q & 15, q >> 4)):
        f.store((nibble.view(i8 * 16) - 8).to(f32) * d, out, 64 * i)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    q = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return (q.astype(np.float32) - 8) * d


FORMAT = Format(
    name="Q4_0",
    type_id=2,
    block=32,
    nbytes=18,
    halves=(0,),
    words=(2, 6, 10, 14),
    activation="q8_32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
