"""MXFP4: 32 weights, w = 2**(e - 128) * VALUES[q]; e of 8 bits, q of 4: floats of 4 bits with an exponent in common.

Block (17 bytes): e, 16 bytes of nibbles: byte i holds weight i (low) and weight 16 + i (high). VALUES are twice the
numbers of E2M1, e is E8M0 without its NaN (Open Compute Project, Microscaling Formats 1.0; kvalues_mxfp4 in
ggml-common.h of ggml-org/llama.cpp).
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.description import Blocks, Fields, Quants
from seventy.formats.q4_0 import nibbles, nibbles_numpy
from seventy.jit.build import Value
from seventy.jit.types import f32

VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def factors(fields: Fields, index: int) -> tuple[Value, ...]:
    e = fields.byte(0)
    # 2**-127 and 2**-128 are subnormal: e = 1 and 0 are the mantissa's upper bits.
    return (((e - 1) << 23).maximum((e + 1) << 21).view(f32 * fields.lanes),)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 128)
    return np.array(VALUES, np.float32)[nibbles_numpy(blocks[:, 1:])] * d


def set_factors(blocks: NDArray[np.uint8], factors: NDArray[np.float32]) -> None:
    with np.errstate(divide="ignore"):
        blocks[:, 0] = np.clip(np.rint(np.log2(np.abs(factors))) + 128, 0, 255)


FORMAT = Format(
    name="MXFP4",
    type_id=39,
    block=32,
    nbytes=17,
    bytes=(0,),
    words=(1, 5, 9, 13),
    weights=Blocks(Quants(nibbles(1), bits=4, table=VALUES), factors),
    dequantize=dequantize,
    set_factors=set_factors,
)
