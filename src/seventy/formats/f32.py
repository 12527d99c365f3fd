"""F32: weights as they are."""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma
from seventy.jit.types import f32


def multiply(tile: Tile) -> None:
    weight = tile.word(0).view(f32 * tile.lanes)
    for t in range(tile.tokens):
        tile.totals[t].set(fma(weight, tile.input(0, 0, t, f32), tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    f.store(f.load(f32, block), out)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return blocks.view(np.float32)


FORMAT = Format(
    name="F32",
    type_id=0,
    block=1,
    nbytes=4,
    halves=(),
    words=(0,),
    activation="f32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
