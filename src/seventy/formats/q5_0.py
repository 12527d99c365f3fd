"""Q5_0: 32 weights, w = d * (q - 16); q of 5 bits.

Block (22 bytes): d f16, 32 upper bits (bit i is weight i's), 16 bytes of nibbles: byte i holds weight i (low) and
weight 16 + i (high).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Blocks, Fields, Quants
from seventy.formats.q4_0 import factors, nibbles, nibbles_numpy
from seventy.jit.build import Value
from seventy.jit.types import u8


def where_set(bits: Value, first: int, value: int) -> Value:
    """Byte i of each 32-bit lane is `value` where bit first + i of the lane is set, else 0; `first` in fours."""
    n = 4 * bits.type.lanes
    source = bits.view(u8 * n).shuffle([lane * 4 + first // 8 for lane in range(n // 4) for _ in range(4)])
    masks = bits.function.vector(u8 * n, [1 << (first % 8 + i) for i in range(4)] * (n // 4))
    return (source & masks).eq(0).select(bits.function.constant(u8 * n, 0), value).view(bits.type)


def five_bits(offset: int) -> Callable[[Fields, int, int], Value]:
    """Return the `word` of Quants for 32 weights of 5 bits: at `offset` are their upper bits, then nibbles."""
    low = nibbles(offset + 4)

    def word(fields: Fields, unit: int, shift: int) -> Value:
        return low(fields, unit, shift) | where_set(fields.word(offset), 4 * unit, 16 << shift)

    return word


def five_bits_numpy(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Combine [n, 20] bytes of upper bits and nibbles to [n, 32]."""
    upper = np.unpackbits(packed[:, :4], axis=1, bitorder="little")
    return (nibbles_numpy(packed[:, 4:]) | upper << 4).astype(np.float32)


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
    weights=Blocks(Quants(five_bits(2), bits=5, offset=16), factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
