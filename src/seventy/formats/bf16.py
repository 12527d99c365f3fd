"""BF16: the upper halves of floats, multiplied as floats: exact products."""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma
from seventy.jit.types import f32, u16, u32


def multiply(tile: Tile) -> None:
    weight = (tile.raw_half(0).to(u32) << 16).view(f32 * tile.lanes)
    for t in range(tile.tokens):
        tile.totals[t].set(fma(weight, tile.input(0, 0, t, f32), tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    f.store((f.load(u16, block).to(u32) << 16).view(f32), out)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (blocks.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


FORMAT = Format(
    name="BF16",
    type_id=30,
    block=1,
    nbytes=2,
    halves=(0,),
    words=(),
    activation="f32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
