"""Q4_1: 32 weights, w = d * q + m; q of 4 bits.

Block (20 bytes): d f16, m f16, 16 bytes of nibbles: byte i holds weight i (low) and weight 16 + i (high).
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, u8, u16, u32


def _nibbles(tile: Tile, index: int, high: int) -> Value:
    word = tile.word(index, first=not high).view(u32 * tile.lanes)
    return (word >> 4 if high else word) & 0x0F0F0F0F


def multiply(tile: Tile) -> None:
    weights = [partial(_nibbles, tile, g, high) for high in range(2) for g in range(4)]
    d, m = tile.half(0), tile.half(1)
    for t, dot in enumerate(tile.dots(weights, 0)):
        total = fma(dot.to(f32) * tile.input(1, 0, t, f32), d, tile.totals[t].get())
        tile.totals[t].set(fma(m, tile.input(2, 0, t, f32), total))


def expand(f: Function, block: Value, out: Value) -> None:
    d, m = (halves_to_float(f.load(u16, block, offset)).splat(16) for offset in (0, 2))
    q = f.load(u8 * 16, block, 4)
    for i, nibble in enumerate((q & 15, q >> 4)):
        f.store(nibble.to(f32) * d + m, out, 64 * i)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, m = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    q = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return q.astype(np.float32) * d + m


FORMAT = Format(
    name="Q4_1",
    type_id=3,
    block=32,
    nbytes=20,
    halves=(0, 2),
    words=(4, 8, 12, 16),
    activation="q8_32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
