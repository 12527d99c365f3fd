"""Q8_0: 32 weights, w = d * q; q a signed byte. Block (34 bytes): d f16, 32 bytes."""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Blocks, Fields, Quants
from seventy.formats.q4_0 import factors
from seventy.jit.build import Value


def word(fields: Fields, unit: int, shift: int) -> Value:
    return fields.word(2 + 4 * unit)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return blocks[:, 2:].view(np.int8).astype(np.float32) * d


FORMAT = Format(
    name="Q8_0",
    type_id=8,
    block=32,
    nbytes=34,
    halves=(0,),
    words=tuple(range(2, 34, 4)),
    weights=Blocks(Quants(word, bits=8, signed=True), factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
