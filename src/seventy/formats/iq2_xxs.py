"""IQ2_XXS: 256 weights as 8 blocks of 32, w = d / 8 * (2 * scale + 1) * level * sign; scale of 4 bits.

Block (66 bytes): d f16, then for each 32 weights 4 bytes, the indices of their groups of eight in the grid, and 32
bits: 7 signs of each group (the eighth makes the minuses even) and the scale above.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.grids import IQ2_XXS, even, even_numpy, signed, signs_numpy, with_signs
from seventy.jit.build import Value
from seventy.jit.simd import pick_bits

LEVELS = (8, 25, 43)


def signs(word: Value) -> Value:
    """Expand the four groups of 7 sign bits in the lower 28 bits of a word to a byte of eight signs each."""
    return even(pick_bits(word, (0, 7, 14, 21), 7))


def word(fields: Fields, unit: int, shift: int) -> Value:
    block, unit = divmod(unit, 8)
    points = fields.once(("points", block), lambda: IQ2_XXS.units(fields.word(2 + 8 * block)))
    minuses = fields.once(("signs", block), lambda: signs(fields.word(6 + 8 * block)))
    return with_signs(points[unit], minuses, unit, 2)


def top_scales(words: list[Value]) -> Value:
    """Return 2 * scale + 1 for four words whose upper 4 bits are the scale."""
    first, *others = (pick_bits(word, (28,) * 4, 4, 1) & (0xFF << 8 * i) for i, word in enumerate(words))
    for other in others:
        first = first | other
    return first | 0x01010101


def scales(fields: Fields) -> list[Value]:
    return [top_scales([fields.word(6 + 8 * block) for block in range(i, i + 4)]) for i in (0, 4)]


def factors(fields: Fields) -> tuple[Value, ...]:
    return (fields.half(0) * 0.125,)


def odd_numpy(scales: NDArray[Any]) -> NDArray[np.float32]:
    """Return 2 * scale + 1."""
    return 2 * scales.astype(np.float32) + 1


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32) / 8
    words = blocks[:, 2:].copy().view(np.uint32).reshape(-1, 8, 2)
    fields = words[..., 1:] >> np.arange(0, 28, 7, dtype=np.uint32)
    points = np.array(LEVELS, np.float32)[IQ2_XXS.points][words[..., :1].copy().view(np.uint8)]
    weights = points.reshape(-1, 8, 32) * signs_numpy(even_numpy(fields).reshape(-1, 32)).reshape(-1, 8, 32)
    return ((d * odd_numpy(words[..., 1] >> 28))[..., None] * weights).reshape(-1, 256)


FORMAT = Format(
    name="IQ2_XXS",
    type_id=16,
    block=256,
    nbytes=66,
    halves=(0,),
    # The scales first, as a product reads them.
    words=(*range(6, 66, 8), *range(2, 66, 8)),
    weights=SuperBlocks(Quants(word, bits=4, table=signed(LEVELS), slow=True), 32, scales, factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
