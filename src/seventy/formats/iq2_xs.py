"""IQ2_XS: 256 weights as 16 blocks of 16, w = d / 8 * (2 * scale + 1) * level * sign; scale of 4 bits.

Block (74 bytes): d f16, for each eight weights 16 bits: 9 of the index in the grid, 7 signs (the eighth makes the
minuses even), 8 bytes of scales: scale 2 i in byte i (low), 2 i + 1 (high). The levels are IQ2_XXS's.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.grids import IQ2_XS, even, even_numpy, signed, signs_numpy, with_signs
from seventy.formats.iq2_xxs import LEVELS, factors, odd_numpy
from seventy.jit.build import Value
from seventy.jit.simd import pick_bits

# Groups of eight whose indices are the bytes of a word here: those of the lower halves of two words, then the upper.
_PLACES = (0, 2, 1, 3)


def word(fields: Fields, unit: int, shift: int) -> Value:
    block, unit = divmod(unit, 8)
    first, second = fields.word(2 + 8 * block), fields.word(6 + 8 * block)
    unit = 2 * _PLACES[unit // 2] + unit % 2
    low = fields.once(("low", block), lambda: (first & 0x00FF00FF) | ((second << 8) & 0xFF00FF00))
    high = fields.once(("high", block), lambda: ((first >> 8) & 0x00FF00FF) | (second & 0xFF00FF00))
    points = fields.once(("points", block), lambda: IQ2_XS.units(low, high))
    minuses = fields.once(("signs", block), lambda: even((high >> 1) & 0x7F7F7F7F))
    return with_signs(points[unit], minuses, unit, 2)


def nibble_scales(words: list[Value]) -> list[Value]:
    """Return 2 * scale + 1 for each nibble of some words, lowest first."""
    return [pick_bits(word, range(first, first + 16, 4), 4, 1) | 0x01010101 for word in words for first in (0, 16)]


def nibble_scales_numpy(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return 2 * scale + 1 for bytes [n, bytes] with two scales each."""
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
    return odd_numpy(nibbles)


def scales(fields: Fields) -> list[Value]:
    return nibble_scales([fields.word(66), fields.word(70)])


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32) / 8
    fields = blocks[:, 2:66].copy().view(np.uint16)
    points = np.array(LEVELS, np.float32)[IQ2_XS.points][fields & 511].reshape(-1, 16, 16)
    weights = points * signs_numpy(even_numpy(fields >> 9)).reshape(-1, 16, 16)
    return ((d * nibble_scales_numpy(blocks[:, 66:]))[..., None] * weights).reshape(-1, 256)


FORMAT = Format(
    name="IQ2_XS",
    type_id=17,
    block=256,
    nbytes=74,
    halves=(0,),
    # The scales first, as a product reads them.
    words=(66, 70, *range(2, 66, 4)),
    weights=SuperBlocks(Quants(word, bits=4, table=signed(LEVELS), slow=True), 16, scales, factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
