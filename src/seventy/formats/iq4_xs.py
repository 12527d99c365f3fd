"""IQ4_XS: 256 weights as 8 blocks of 32, w = d * (scale - 32) * VALUES[q]; scale of 6 bits, q of 4.

Block (136 bytes): d f16, 16 bits with the upper bit pairs of the 8 scales, 4 bytes with their low nibbles (scale 2i
low, 2i + 1 high), 128 bytes of nibbles: byte i of the b-th 16 holds weight i of block b (low) and weight 16 + i
(high). VALUES are IQ4_NL's.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks, pick
from seventy.formats.iq4_nl import VALUES
from seventy.jit.build import Value
from seventy.jit.simd import as_bytes


def word(fields: Fields, unit: int, shift: int) -> Value:
    return pick(fields.word(8 + 16 * (unit // 8) + 4 * (unit % 4)), 4 * (unit // 4 % 2), 4, shift)


def scales(fields: Fields) -> list[Value]:
    nibbles, pairs = fields.word(4), fields.bits(2)
    # Bit pairs 2i and 2i + 1 go to the low nibble of byte i.
    pairs = (pairs | (pairs << 8)) & 0x00FF00FF
    pairs = (pairs | (pairs << 4)) & 0x0F0F0F0F
    even = as_bytes(pick(nibbles, 0, 4) | ((pairs << 4) & 0x30303030)) - 32
    odd = as_bytes(pick(nibbles, 4, 4) | ((pairs << 2) & 0x30303030)) - 32
    n = 4 * fields.lanes
    halves = ([4 * lane + i + n * high for lane in range(n // 4) for i in two for high in (0, 1)]
              for two in ((0, 1), (2, 3)))
    return [even.shuffle(half, odd).view(nibbles.type) for half in halves]


def factors(fields: Fields) -> tuple[Value, ...]:
    return (fields.half(0),)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    pairs = blocks[:, 2:4].copy().view(np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16)
    nibbles = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    scales = (nibbles | (pairs & 3) << 4).astype(np.float32) - 32
    packed = blocks[:, 8:].reshape(-1, 8, 16)
    values = np.array(VALUES, np.float32)[np.concatenate([packed & 15, packed >> 4], axis=2)]
    return ((d * scales)[..., None] * values).reshape(-1, 256)


FORMAT = Format(
    name="IQ4_XS",
    type_id=23,
    block=256,
    nbytes=136,
    halves=(0, 2),
    words=tuple(range(4, 136, 4)),
    weights=SuperBlocks(Quants(word, bits=4, table=VALUES), 32, scales, factors, signed=True),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
