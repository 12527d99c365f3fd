"""Q4_0: 32 weights, w = d * (q - 8); q of 4 bits.

Block (18 bytes): d f16, 16 bytes of nibbles: byte i holds weight i (low) and weight 16 + i (high).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Blocks, Fields, Quants, pick
from seventy.jit.build import Value


def nibbles(offset: int) -> Callable[[Fields, int, int], Value]:
    """Return the `word` of Quants for 32 weights of 4 bits, whose 16 bytes begin at `offset`."""

    def word(fields: Fields, unit: int, shift: int) -> Value:
        return pick(fields.word(offset + 4 * (unit % 4)), 4 * (unit // 4), 4, shift)

    return word


def nibbles_numpy(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert [n, 16] bytes of nibbles to [n, 32]."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def factors(fields: Fields, index: int) -> tuple[Value, ...]:
    return (fields.half(0),)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return (nibbles_numpy(blocks[:, 2:]).astype(np.float32) - 8) * d


FORMAT = Format(
    name="Q4_0",
    type_id=2,
    block=32,
    nbytes=18,
    halves=(0,),
    words=(2, 6, 10, 14),
    weights=Blocks(Quants(nibbles(2), bits=4, offset=8), factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
