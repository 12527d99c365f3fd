"""Q4_1: 32 weights, w = d * q + m; q of 4 bits.

Block (20 bytes): d f16, m f16, 16 bytes of nibbles: byte i holds weight i (low) and weight 16 + i (high).
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Blocks, Fields, Quants
from seventy.formats.q4_0 import nibbles, nibbles_numpy
from seventy.jit.build import Value


def factors(fields: Fields, index: int) -> tuple[Value, ...]:
    return fields.half(0), fields.half(2)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, m = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    return nibbles_numpy(blocks[:, 4:]).astype(np.float32) * d + m


FORMAT = Format(
    name="Q4_1",
    type_id=3,
    block=32,
    nbytes=20,
    halves=(0, 2),
    words=(4, 8, 12, 16),
    weights=Blocks(Quants(nibbles(4), bits=4), factors),
    dequantize=dequantize,
    set_factors=set_halves(0, 2),
)
