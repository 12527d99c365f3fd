"""IQ4_NL: 32 weights, w = d * VALUES[q]; q of 4 bits.

Block (18 bytes): d f16, 16 bytes of nibbles: byte i holds weight i (low) and weight 16 + i (high). The 16 values are
kvalues_iq4nl in ggml-common.h of ggml-org/llama.cpp.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Blocks, Quants
from seventy.formats.q4_0 import factors, nibbles, nibbles_numpy

VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return np.array(VALUES, np.float32)[nibbles_numpy(blocks[:, 2:])] * d


FORMAT = Format(
    name="IQ4_NL",
    type_id=20,
    block=32,
    nbytes=18,
    halves=(0,),
    words=(2, 6, 10, 14),
    weights=Blocks(Quants(nibbles(2), bits=4, table=VALUES), factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
