"""IQ4_NL: 32 weights, w = d * VALUES[q]; q of 4 bits.

Block (18 bytes): d f16, 16 bytes of nibbles: byte i holds weight i (low) and weight 16 + i (high). The 16 values are
kvalues_iq4nl in ggml-common.h of ggml-org/llama.cpp.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import as_bytes, fma, halves_to_float, lookup16
from seventy.jit.types import f32, i32, u8, u16

VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _values(tile: Tile, index: int, high: int, offset: int) -> Value:
    word = as_bytes(tile.word(index, first=not high))
    nibbles = word >> 4 if high else word & 15
    return lookup16(nibbles, [value + offset for value in VALUES]).view(i32 * tile.lanes)


def looked_up(tile: Tile, first: int, offset: int) -> list[Callable[[], Value]]:
    """What makes the values, plus `offset`, of the low nibbles of four words from `first` on, then of the high ones."""
    return [partial(_values, tile, first + g, high, offset) for high in range(2) for g in range(4)]


def multiply(tile: Tile) -> None:
    if tile.f.isa.dot == "maddubs":
        dots = tile.signed_dots(looked_up(tile, 0, 0), 0)
    else:
        # Values + 128 are unsigned; the input section starts each sum at -128 times the sum of its inputs.
        dots = tile.dots(looked_up(tile, 0, 128), 0, [tile.input(3, 0, t) for t in range(tile.tokens)])
    d = tile.half(0)
    for t, dot in enumerate(dots):
        scaled = dot.to(f32) * tile.input(1, 0, t, f32)
        tile.totals[t].set(fma(scaled, d, tile.totals[t].get()))


def expand(f: Function, block: Value, out: Value) -> None:
    d = halves_to_float(f.load(u16, block)).splat(16)
    q = f.load(u8 * 16, block, 2)
    for i, nibble in enumerate((q & 15, q >> 4)):
        f.store(lookup16(nibble, VALUES).to(f32) * d, out, 64 * i)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    q = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return np.array(VALUES, np.float32)[q] * d


FORMAT = Format(
    name="IQ4_NL",
    type_id=20,
    block=32,
    nbytes=18,
    halves=(0,),
    words=(2, 6, 10, 14),
    activation="q8_32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
