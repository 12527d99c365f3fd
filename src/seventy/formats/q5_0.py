"""Q5_0: 32 weights, w = d * (q - 16); q of 5 bits.

Block (22 bytes): d f16, 32 upper bits (bit i is weight i's), 16 bytes of nibbles: byte i holds weight i (low) and
weight 16 + i (high).
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value
from seventy.jit.simd import fma, halves_to_float
from seventy.jit.types import f32, i8, i32, u8, u16, u32


def where_set(bits: Value, first: int, value: int) -> Value:
    """Byte i of each 32-bit lane is `value` where bit first + i of the lane is set, else 0; `first` in fours."""
    n = 4 * bits.type.lanes
    source = bits.view(u8 * n).shuffle([lane * 4 + first // 8 for lane in range(n // 4) for _ in range(4)])
    masks = bits.function.vector(u8 * n, [1 << (first % 8 + i) for i in range(4)] * (n // 4))
    return (source & masks).eq(0).select(bits.function.constant(u8 * n, 0), value).view(bits.type)


def _weights(tile: Tile, g: int, high: int, shift: int) -> Value:
    """Four weights of 5 bits, shifted left by `shift` (0 or 3) within their bytes."""
    word = tile.word(1 + g, first=not high).view(u32 * tile.lanes)
    right = 4 * high - shift
    nibbles = (word >> right if right > 0 else word << -right if right else word) & (0x0F0F0F0F << shift)
    upper = tile.word(0, first=g == high == 0)
    return nibbles.view(i32 * tile.lanes) | where_set(upper, 16 * high + 4 * g, 16 << shift)


def five_bit_dots(tile: Tile, shift: int, start: Sequence[Value] | None = None) -> list[Value]:
    """Products of q << shift with the block's inputs, plus `start`; upper bits in word 0, nibbles from word 1 on."""
    low, high = ([partial(_weights, tile, g, half, shift) for g in range(4)] for half in range(2))
    # 16-bit sums hold four words of 5-bit weights.
    return tile.dots(high, 4, tile.dots(low, 0, start))


def multiply(tile: Tile) -> None:
    # Eight times the product: the input section's -128 times its sum is then the offset of 16.
    start = [tile.input(3, 0, t) for t in range(tile.tokens)]
    if tile.f.isa.dot == "maddubs":
        dots = [(dot << 3) + offset for dot, offset in zip(five_bit_dots(tile, 0), start, strict=True)]
    else:
        dots = five_bit_dots(tile, 3, start)
    d = tile.half(0) * (1 / 8)
    for t, dot in enumerate(dots):
        scaled = dot.to(f32) * tile.input(1, 0, t, f32)
        tile.totals[t].set(fma(scaled, d, tile.totals[t].get()))


def expand_five_bits(f: Function, block: Value, offset: int) -> list[Value]:
    """q of weights 0-15 and 16-31, u8; `offset` is that of the upper bits, before the nibbles."""
    nibbles = f.load(u8 * 16, block, offset + 4)
    parts = []
    for half, nibble in enumerate((nibbles & 15, nibbles >> 4)):
        upper = f.load(u16, block, offset + 2 * half).splat(16)
        set_bits = upper & f.vector(u16 * 16, [1 << i for i in range(16)])
        parts.append(nibble | set_bits.eq(0).select(f.constant(u8 * 16, 0), 16))
    return parts


def five_bits_numpy(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 20] bytes, upper bits and nibbles, as q [n, 32]."""
    upper = np.unpackbits(packed[:, :4], axis=1, bitorder="little")
    q = np.concatenate([packed[:, 4:] & 15, packed[:, 4:] >> 4], axis=1) | upper << 4
    return q.astype(np.float32)


def expand(f: Function, block: Value, out: Value) -> None:
    d = halves_to_float(f.load(u16, block)).splat(16)
    for i, q in enumerate(expand_five_bits(f, block, 2)):
        f.store((q.view(i8 * 16) - 16).to(f32) * d, out, 64 * i)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return (five_bits_numpy(blocks[:, 2:]) - 16) * d


FORMAT = Format(
    name="Q5_0",
    type_id=6,
    block=32,
    nbytes=22,
    halves=(0,),
    words=(2, 6, 10, 14, 18),
    activation="q8_32",
    multiply=multiply,
    expand=expand,
    dequantize=dequantize,
)
