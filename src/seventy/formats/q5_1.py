"""Q5_1: 32 weights, w = d * q + m; q of 5 bits.

Block (24 bytes): d f16, m f16, then upper bits and nibbles as Q5_0 has them.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.q5_0 import expand_five_bits, five_bit_dots, five_bits_numpy
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, u16


def multiply(tile: Tile) -> None:
    d, m = tile.half(0), tile.half(1)
    for t, dot in enumerate(five_bit_dots(tile, 0)):
        total = fma(dot.to(f32) * tile.input(1, 0, t, f32), d, tile.totals[t].get())
        tile.totals[t].set(fma(m, tile.input(2, 0, t, f32), total))


def expand(f: Function, block: Value, out: Value) -> None:
    d, m = (halves_to_float(f.load(u16, block, offset)).splat(16) for offset in (0, 2))
    for i, q in enumerate(expand_five_bits(f, block, 4)):
        f.store(q.to(f32) * d + m, out, 64 * i)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, m = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    return five_bits_numpy(blocks[:, 4:]) * d + m


FORMAT = Format(
    name="Q5_1",
    type_id=7,
    block=32,
    nbytes=24,
    halves=(0, 2),
    words=(4, 8, 12, 16, 20),
    activation="q8_32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
