"""IQ3_S: 256 weights as 8 blocks of 32, w = d * (2 * scale + 1) * level * sign; scale of 4 bits.

Block (110 bytes): d f16, 64 bytes, the lower bits of the indices of groups of four in the grid, 8 bytes of their ninth
bits, 32 bytes of signs, 4 bytes of scales as IQ2_XS has them.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.grids import IQ3_S, signed, signs_numpy, with_signs
from seventy.formats.iq2_xs import nibble_scales, nibble_scales_numpy
from seventy.formats.iq4_xs import factors
from seventy.jit.build import Value
from seventy.jit.lookup import Units
from seventy.jit.simd import pick_bits

LEVELS = (1, 3, 5, 7, 9, 11, 13, 15)


def points(fields: Fields, four: int) -> Units:
    """Look up the grid points of the four groups of the four-th 16 weights."""
    first = 4 * (four % 8)
    ninth = pick_bits(fields.word(66 + 4 * (four // 8)), range(first, first + 4), 1)
    return IQ3_S.units(fields.word(2 + 4 * four), ninth)


def word(fields: Fields, unit: int, shift: int) -> Value:
    four, unit_of_four = divmod(unit, 4)
    found = fields.once(("points", four), lambda: points(fields, four))
    return with_signs(found[unit_of_four], fields.word(74 + 4 * (unit // 8)), unit % 8, 3)


def scales(fields: Fields) -> list[Value]:
    return nibble_scales([fields.word(106)])


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    ninth = np.unpackbits(blocks[:, 66:74], axis=1, bitorder="little").astype(np.uint16)
    points = np.array(LEVELS, np.float32)[IQ3_S.points][blocks[:, 2:66] | ninth << 8]
    weights = points.reshape(-1, 8, 32) * signs_numpy(blocks[:, 74:106]).reshape(-1, 8, 32)
    return ((d * nibble_scales_numpy(blocks[:, 106:]))[..., None] * weights).reshape(-1, 256)


FORMAT = Format(
    name="IQ3_S",
    type_id=21,
    block=256,
    nbytes=110,
    halves=(0,),
    # The scales and ninth bits first, as a product reads them.
    words=(106, 66, 70, *range(2, 66, 4), *range(74, 106, 4)),
    weights=SuperBlocks(Quants(word, bits=4, table=signed(LEVELS), slow=True), 32, scales, factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
