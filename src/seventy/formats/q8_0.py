"""Q8_0: 32 weights, w = d * q; q a signed byte. Block (34 bytes): d f16, 32 bytes."""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, i8, u16


def multiply(tile: Tile) -> None:
    words = [tile.word(g) for g in range(8)]
    if tile.f.isa.dot == "vnni":
        # q + 128 is unsigned; the input section starts each sum at -128 times the sum of its inputs.
        start = [tile.input(3, 0, t) for t in range(tile.tokens)]
        dots = tile.dots([word ^ -0x7F7F7F80 for word in words], 0, start)
    else:
        dots = tile.signed_dots(words, 0)
    d = tile.half(0)
    for t, dot in enumerate(dots):
        scaled = dot.to(f32) * tile.input(1, 0, t, f32)
        tile.totals[t].set(fma(scaled, d, tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    d = halves_to_float(f.load(u16, block)).splat(16)
    for i in range(2):
        f.store(f.load(i8 * 16, block, 2 + 16 * i).to(f32) * d, out, 64 * i)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return blocks[:, 2:].view(np.int8).astype(np.float32) * d


FORMAT = Format(
    name="Q8_0",
    type_id=8,
    block=32,
    nbytes=34,
    halves=(0,),
    words=tuple(range(2, 34, 4)),
    activation="q8_32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
