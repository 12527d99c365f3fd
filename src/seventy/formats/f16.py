"""F16: half-precision weights, multiplied as floats: exact products."""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, u16


def multiply(tile: Tile) -> None:
    weight = tile.half(0)
    for t in range(tile.tokens):
        tile.totals[t].set(fma(weight, tile.input(0, 0, t, f32), tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    f.store(halves_to_float(f.load(u16, block)), out)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return blocks.view(np.float16).astype(np.float32)


FORMAT = Format(
    name="F16",
    type_id=1,
    block=1,
    nbytes=2,
    halves=(0,),
    words=(),
    activation="f32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
