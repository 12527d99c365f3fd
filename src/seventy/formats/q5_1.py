"""Q5_1: 32 weights, w = d * q + m; q of 5 bits.

Block (24 bytes): d f16, m f16, then upper bits and nibbles as Q5_0 has them.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Blocks, Quants
from seventy.formats.q4_1 import factors
from seventy.formats.q5_0 import five_bits, five_bits_numpy


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
    weights=Blocks(Quants(five_bits(4), bits=5), factors),
    dequantize=dequantize,
    set_factors=set_halves(0, 2),
)
