"""BF16: the upper halves of floats, multiplied as floats: exact products."""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.description import Fields, Floats
from seventy.jit.build import Value
from seventy.jit.types import f32


def weight(fields: Fields) -> Value:
    return (fields.bits(0) << 16).view(f32 * fields.lanes)


def set_factors(blocks: NDArray[np.uint8], factors: NDArray[np.float32]) -> None:
    blocks[:] = factors.view(np.uint8).reshape(-1, 4)[:, 2:]


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (blocks.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


FORMAT = Format(
    name="BF16",
    type_id=30,
    block=1,
    nbytes=2,
    halves=(0,),
    weights=Floats(weight),
    dequantize=dequantize,
    set_factors=set_factors,
)
