"""IQ2_S: 256 weights as 16 blocks of 16, w = d / 8 * (2 * scale + 1) * level * sign; scale of 4 bits.

Block (82 bytes): d f16, 32 bytes, the lower bits of the indices of groups of eight in the grid, 32 bytes of signs, 8
bytes of upper bit pairs (those of groups 4 i to 4 i + 3 in byte i), 8 bytes of scales as IQ2_XS has them. The levels
are IQ2_XXS's.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.grids import IQ2_S, signed, signs_numpy, with_signs
from seventy.formats.iq2_xs import nibble_scales, nibble_scales_numpy
from seventy.formats.iq2_xxs import LEVELS, factors
from seventy.jit.build import Value
from seventy.jit.lookup import Units
from seventy.jit.simd import pick_bits


def points(fields: Fields, block: int) -> Units:
    """Look up the grid points of the four groups of the block-th 32 weights."""
    first = 8 * (block % 4)
    upper = pick_bits(fields.word(66 + 4 * (block // 4)), range(first, first + 8, 2), 2)
    return IQ2_S.units(fields.word(2 + 4 * block), upper)


def word(fields: Fields, unit: int, shift: int) -> Value:
    block, unit = divmod(unit, 8)
    found = fields.once(("points", block), lambda: points(fields, block))
    return with_signs(found[unit], fields.word(34 + 4 * block), unit, 2)


def scales(fields: Fields) -> list[Value]:
    return nibble_scales([fields.word(74), fields.word(78)])


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32) / 8
    upper = (blocks[:, 66:74, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3).reshape(-1, 32)
    points = np.array(LEVELS, np.float32)[IQ2_S.points][blocks[:, 2:34] | upper.astype(np.uint16) << 8]
    weights = points.reshape(-1, 16, 16) * signs_numpy(blocks[:, 34:66]).reshape(-1, 16, 16)
    return ((d * nibble_scales_numpy(blocks[:, 74:]))[..., None] * weights).reshape(-1, 256)


FORMAT = Format(
    name="IQ2_S",
    type_id=22,
    block=256,
    nbytes=82,
    halves=(0,),
    # The scales and upper bits first, as a product reads them.
    words=(*range(66, 82, 4), *range(2, 66, 4)),
    weights=SuperBlocks(Quants(word, bits=4, table=signed(LEVELS), slow=True), 16, scales, factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
