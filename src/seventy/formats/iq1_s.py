"""IQ1_S: 256 weights as 8 blocks of 32, w = d * (2 * scale + 1) * (level + delta); scale of 3 bits.

Block (50 bytes): d f16, 32 bytes, the lower bits of the indices of groups of eight in the grid, then for each 32
weights 16 bits: four times 3 upper bits of an index, the scale, and whether delta is -1 / 8, not 1 / 8. The levels are
-1, 0 and 1. A product sees w = d / 8 * (scale * q - min) with q of 0, 1 and 2, scales eight times and mins seven or
nine times the odd number.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.grids import IQ1_S
from seventy.formats.iq2_xxs import odd_numpy
from seventy.jit.build import Value
from seventy.jit.lookup import Units
from seventy.jit.simd import pick_bits


def word(fields: Fields, unit: int, shift: int) -> Value:
    block, unit = divmod(unit, 8)
    return fields.once(("points", block), lambda: points(fields, block))[unit]


def points(fields: Fields, block: int) -> Units:
    """Look up the grid points of the four groups of the block-th 32 weights."""
    upper = pick_bits(fields.bits(34 + 2 * block), (0, 3, 6, 9), 3)
    return IQ1_S.units(fields.word(2 + 4 * block), upper)


def upper_bits(fields: Fields, first: int, bits: int, to: int) -> list[Value]:
    """Extract bits of each block's 16, moved to bit `to` of a byte, as two words of four blocks."""
    words = []
    for start in (0, 4):
        parts = [
            pick_bits(fields.bits(34 + 2 * (start + i)), (first,) * 4, bits, to) & (0xFF << 8 * i) for i in range(4)
        ]
        words.append(parts[0] | parts[1] | parts[2] | parts[3])
    return words


def odd(fields: Fields) -> list[Value]:
    """Return 2 * scale + 1, up to 15."""
    return [word | 0x01010101 for word in upper_bits(fields, 12, 3, 1)]


def scales(fields: Fields) -> list[Value]:
    return [word << 3 for word in odd(fields)]


def mins(fields: Fields) -> list[Value]:
    """Return 7 times the odd scale, or 9 times where delta is negative; no byte overflows into the next."""
    minus = ((word << 4) - word for word in upper_bits(fields, 15, 1, 0))
    return [(word << 3) - word + ((word & mask) << 1) for word, mask in zip(odd(fields), minus, strict=True)]


def factors(fields: Fields) -> tuple[Value, ...]:
    d = fields.half(0) * 0.125
    return d, d


def points_numpy(indices: NDArray[Any], minus: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Eight times level + delta of groups [n, 32], as [n, 256]; `minus` says where delta is negative."""
    points = 8 * IQ1_S.points.astype(np.float32)[indices] - 7
    return (points - 2 * minus[..., None].astype(np.float32)).reshape(-1, 256)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32) * np.float32(0.125)
    fields = blocks[:, 34:].copy().view(np.uint16)
    upper = (fields[..., None] >> np.arange(0, 12, 3, dtype=np.uint16) & 7).reshape(-1, 32)
    weights = points_numpy(blocks[:, 2:34] | upper << 8, np.repeat(fields >> 15 > 0, 4, axis=1)).reshape(-1, 8, 32)
    return ((d * odd_numpy(fields >> 12 & 7))[..., None] * weights).reshape(-1, 256)


FORMAT = Format(
    name="IQ1_S",
    type_id=19,
    block=256,
    nbytes=50,
    halves=(0, *range(34, 50, 2)),
    words=tuple(range(2, 34, 4)),
    weights=SuperBlocks(Quants(word, bits=2, slow=True), 32, scales, factors, mins),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
