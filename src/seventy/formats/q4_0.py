"""Q4_0: 32 weights, w = d * (q - 8); q of 4 bits.

Block (18 bytes): d f16, 16 bytes of nibbles: byte i holds weight i (low) and weight 16 + i (high).
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, i8, u8, u16, u32


def _nibbles(tile: Tile, index: int, high: int, shift: int) -> Value:
    """The low or high nibbles of a word, shifted left by `shift` (0 or 4) within their bytes."""
    word = tile.word(index, first=not high).view(u32 * tile.lanes)
    right = 4 * high - shift
    return (word >> right if right > 0 else word << -right if right else word) & (0x0F0F0F0F << shift)


def multiply(tile: Tile) -> None:
    shift = 0 if tile.f.isa.dot == "maddubs" else 4
    weights = [partial(_nibbles, tile, g, high, shift) for high in range(2) for g in range(4)]
    # Sixteen times the product: the input section's -128 times its sum is then the offset of 8.
    start = [tile.input(3, 0, t) for t in range(tile.tokens)]
    if shift:
        dots = tile.dots(weights, 0, start)
    else:
        dots = [(dot << 4) + offset for dot, offset in zip(tile.dots(weights, 0), start, strict=True)]
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
