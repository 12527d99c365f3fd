"""IQ1_M: 256 weights as 16 blocks of 16, w = d * (2 * scale + 1) * (level + delta); scale of 3 bits.

Block (56 bytes): 32 bytes, the lower bits of the indices of groups of eight in the grid, 16 bytes with a nibble for
each group: 3 upper bits, and whether delta is -1 / 8, not 1 / 8; four times 16 bits: four scales and 4 bits of d, f16,
the lowest first. Grid and levels are IQ1_S's.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.grids import IQ1_S
from seventy.formats.iq1_s import points_numpy
from seventy.formats.iq2_xxs import odd_numpy
from seventy.jit.build import Value
from seventy.jit.lookup import Units
from seventy.jit.simd import halves_to_float, pick_bits
from seventy.jit.types import u16

# Eight times level and delta in one: two bits of the level, and a third where delta is negative.
TABLE = (-7, 1, 9, 0, -9, -1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def points(fields: Fields, block: int) -> Units:
    """Look up the grid points of the four groups of the block-th 32 weights."""
    first = 16 * (block % 2)
    upper = pick_bits(fields.word(32 + 4 * (block // 2)), range(first, first + 16, 4), 3)
    return IQ1_S.units(fields.word(4 * block), upper)


def word(fields: Fields, unit: int, shift: int) -> Value:
    block, group = unit // 8, unit // 2
    found = fields.once(("points", block), lambda: points(fields, block))
    delta = 4 * (group % 8) + 3
    signs = fields.once(("delta", group), lambda: pick_bits(fields.word(32 + 4 * (group // 8)), (delta,) * 4, 1, 2))
    return found[unit % 8] | signs


def scales(fields: Fields) -> list[Value]:
    return [
        pick_bits(fields.word(offset), range(first, first + 12, 3), 3, 1) | 0x01010101
        for offset in (48, 52)
        for first in (0, 16)
    ]


def factors(fields: Fields) -> tuple[Value, ...]:
    low, high = fields.word(48), fields.word(52)
    bits = ((low >> 12) & 0x000F) | ((low >> 24) & 0x00F0) | ((high >> 4) & 0x0F00) | ((high >> 16) & 0xF000)
    return (halves_to_float(bits.to(u16)) * 0.125,)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    fields = blocks[:, 48:].copy().view(np.uint16)
    bits = ((fields >> 12) << np.arange(0, 16, 4, dtype=np.uint16)).sum(1, dtype=np.uint16)
    d = bits.view(np.float16).astype(np.float32)[:, None] / 8
    scales = odd_numpy(fields[..., None] >> np.arange(0, 12, 3, dtype=np.uint16) & 7)
    nibbles = np.stack([blocks[:, 32:48] & 15, blocks[:, 32:48] >> 4], axis=-1).reshape(-1, 32)
    weights = points_numpy(blocks[:, :32] | (nibbles & 7).astype(np.uint16) << 8, nibbles > 7)
    return ((d * scales.reshape(-1, 16))[..., None] * weights.reshape(-1, 16, 16)).reshape(-1, 256)


def set_factors(blocks: NDArray[np.uint8], factors: NDArray[np.float32]) -> None:
    bits = factors.astype(np.float16).view(np.uint16)[:, None] >> np.arange(0, 16, 4, dtype=np.uint16) & 15
    blocks[:, 49::2] = blocks[:, 49::2] & 15 | bits.astype(np.uint8) << 4


FORMAT = Format(
    name="IQ1_M",
    type_id=29,
    block=256,
    nbytes=56,
    # The scales and upper bits first, as a product reads them.
    words=(48, 52, *range(32, 48, 4), *range(0, 32, 4)),
    weights=SuperBlocks(Quants(word, bits=4, table=TABLE, slow=True), 16, scales, factors),
    dequantize=dequantize,
    set_factors=set_factors,
)
