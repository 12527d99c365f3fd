"""IQ3_XXS: 256 weights as 8 blocks of 32, w = d / 4 * (2 * scale + 1) * level * sign; scale of 4 bits.

Block (98 bytes): d f16, 64 bytes, the indices of groups of four in the grid, then for each 32 weights 32 bits: signs
and the scale as IQ2_XXS has them.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.grids import IQ3_XXS, even_numpy, signed, signs_numpy, with_signs
from seventy.formats.iq2_xxs import odd_numpy, signs, top_scales
from seventy.jit.build import Value

LEVELS = (4, 12, 20, 28, 36, 44, 52, 62)


def word(fields: Fields, unit: int, shift: int) -> Value:
    block = unit // 8
    points = fields.once(("points", unit // 4), lambda: IQ3_XXS.units(fields.word(2 + 4 * (unit // 4))))
    minuses = fields.once(("signs", block), lambda: signs(fields.word(66 + 4 * block)))
    return with_signs(points[unit % 4], minuses, unit % 8, 3)


def scales(fields: Fields) -> list[Value]:
    return [top_scales([fields.word(66 + 4 * block) for block in range(i, i + 4)]) for i in (0, 4)]


def factors(fields: Fields) -> tuple[Value, ...]:
    return (fields.half(0) * 0.25,)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32) / 4
    words = blocks[:, 66:].copy().view(np.uint32)
    fields = words[..., None] >> np.arange(0, 28, 7, dtype=np.uint32)
    points = np.array(LEVELS, np.float32)[IQ3_XXS.points][blocks[:, 2:66]]
    weights = points.reshape(-1, 8, 32) * signs_numpy(even_numpy(fields).reshape(-1, 32)).reshape(-1, 8, 32)
    return ((d * odd_numpy(words >> 28))[..., None] * weights).reshape(-1, 256)


FORMAT = Format(
    name="IQ3_XXS",
    type_id=18,
    block=256,
    nbytes=98,
    halves=(0,),
    # The scales first, as a product reads them.
    words=(*range(66, 98, 4), *range(2, 66, 4)),
    weights=SuperBlocks(Quants(word, bits=4, table=signed(LEVELS), slow=True), 32, scales, factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
