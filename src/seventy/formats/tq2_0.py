"""TQ2_0: 256 weights, w = d * (q - 1); q of 2 bits, meant to be 0, 1 or 2.

Block (66 bytes): 64 bytes of bit pairs, d f16. In the n-th half of 128 weights, weight 32 j + i has its bit pair j in
byte 32 n + i.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks, pick
from seventy.jit.build import Value
from seventy.jit.simd import as_bytes


def word(fields: Fields, unit: int, shift: int) -> Value:
    q = pick(fields.word(32 * (unit // 32) + 4 * (unit % 8)), 2 * (unit // 8 % 4), 2)
    return (as_bytes(q) - 1).view(q.type)


def scales(fields: Fields) -> list[Value]:
    return [fields.constant(1)]


def factors(fields: Fields) -> tuple[Value, ...]:
    return (fields.half(64),)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, 64:].copy().view(np.float16).astype(np.float32)
    q = (blocks[:, :64].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & 3
    return (q.reshape(-1, 256).astype(np.float32) - 1) * d


FORMAT = Format(
    name="TQ2_0",
    type_id=35,
    block=256,
    nbytes=66,
    halves=(64,),
    words=tuple(range(0, 64, 4)),
    weights=SuperBlocks(Quants(word, bits=3, signed=True), 256, scales, factors),
    dequantize=dequantize,
    set_factors=set_halves(64),
)
