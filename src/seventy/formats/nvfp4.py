"""NVFP4: 64 weights as 4 blocks of 16, w = d * VALUES[q]; d a float of 8 bits, q of 4.

Block (36 bytes): the 4 d, then for each of the 4 blocks 8 bytes of nibbles: byte i holds weight i (low) and weight
8 + i (high). VALUES are MXFP4's, so d is half of what its 4 bits of exponent (bias 7) and 3 of mantissa say; 0x7F is 0
(ggml_ue4m3_to_fp32 in ggml-impl.h of ggml-org/llama.cpp). A factor of the whole tensor is no part of its blocks.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.description import Blocks, Fields, Quants, pick
from seventy.formats.mxfp4 import VALUES
from seventy.jit.build import Value
from seventy.jit.simd import pick_bytes
from seventy.jit.types import f32


def word(fields: Fields, unit: int, shift: int) -> Value:
    return pick(fields.word(4 + 8 * (unit // 4) + 4 * (unit % 2)), 4 * (unit // 2 % 2), 4, shift)


def factors(fields: Fields, index: int) -> tuple[Value, ...]:
    byte = pick_bytes(fields.word(0), index)
    # The exponent is 119 too small; multiplying, unlike adding to it, is right for subnormals too.
    d = ((byte & 0x7F) << 20).view(f32 * fields.lanes) * 2.0**119
    return (byte.eq(0x7F).select(0.0, d),)


def scales_numpy(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float32)
    d = np.where(exponent > 0, np.ldexp(8 + mantissa, exponent - 11), np.ldexp(mantissa, -10))
    return np.where(codes == 0x7F, np.float32(0), d).astype(np.float32)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    packed = blocks[:, 4:].reshape(-1, 4, 8)
    values = np.array(VALUES, np.float32)[np.concatenate([packed & 15, packed >> 4], axis=2)]
    return (scales_numpy(blocks[:, :4])[..., None] * values).reshape(-1, 64)


def set_factors(blocks: NDArray[np.uint8], factors: NDArray[np.float32]) -> None:
    known = scales_numpy(np.arange(0x7F, dtype=np.uint8))
    nearest = np.searchsorted((known[1:] + known[:-1]) / 2, np.abs(factors))
    blocks[:, :4] = nearest[:, None]


FORMAT = Format(
    name="NVFP4",
    type_id=40,
    block=64,
    nbytes=36,
    words=tuple(range(0, 36, 4)),
    weights=Blocks(Quants(word, bits=4, table=VALUES), factors, size=16),
    dequantize=dequantize,
    set_factors=set_factors,
)
