"""IQ1_S: 256 weights as 8 blocks of 32, w = d * (2 * scale + 1) * (level + delta); scale of 3 bits.

Block (50 bytes): d f16, 32 bytes, the lower bits of the indices of groups of eight in the grid, then for each 32
weights 16 bits: four times 3 upper bits of an index, the scale, and whether delta is -1 / 8, not 1 / 8. The levels are
-1, 0 and 1; here they and delta are one integer, eight times as large.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.grids import IQ1_S
from seventy.formats.iq2_xxs import factors, odd_numpy
from seventy.jit.build import Value
from seventy.jit.simd import pick_bits

# Eight times the level, and a bit above it that says how delta is signed.
TABLE = (-7, 1, 9, 0, -9, -1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def word(fields: Fields, unit: int, shift: int) -> Value:
    block, unit = divmod(unit, 8)
    upper = fields.once(("upper", block), lambda: fields.bits(34 + 2 * block))
    points = fields.once(
        ("points", block), lambda: IQ1_S.units(fields.word(2 + 4 * block), pick_bits(upper, (0, 3, 6, 9), 3))
    )
    return points[unit] | fields.once(("delta", block), lambda: pick_bits(upper, (15,) * 4, 1, 2))


def scales(fields: Fields) -> list[Value]:
    words = []
    for first in (0, 4):
        parts = [pick_bits(fields.bits(34 + 2 * (first + i)), (12,) * 4, 3, 1) & (0xFF << 8 * i) for i in range(4)]
        words.append(parts[0] | parts[1] | parts[2] | parts[3] | 0x01010101)
    return words


def points_numpy(indices: NDArray[Any], minus: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Eight times level + delta of groups [n, 32], as [n, 256]; `minus` says where delta is negative."""
    codes = IQ1_S.points[indices] | (4 * minus[..., None]).astype(np.uint8)
    return np.array(TABLE, np.float32)[codes].reshape(-1, 256)


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
    weights=SuperBlocks(Quants(word, bits=4, table=TABLE, slow=True), 32, scales, factors),
    dequantize=dequantize,
    set_factors=set_halves(0),
)
