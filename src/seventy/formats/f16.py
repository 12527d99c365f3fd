"""F16: half-precision weights, multiplied as floats: exact products."""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Floats
from seventy.jit.build import Value


def weight(fields: Fields) -> Value:
    return fields.half(0)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return blocks.view(np.float16).astype(np.float32)


FORMAT = Format(
    name="F16",
    type_id=1,
    block=1,
    nbytes=2,
    halves=(0,),
    weights=Floats(weight),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
