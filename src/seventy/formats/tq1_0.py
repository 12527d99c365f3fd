"""TQ1_0: 256 weights, w = d * (q - 1); q of 0, 1 or 2, five to a byte.

Block (54 bytes): 32 bytes with weights 32 j + i, 16 with weights 160 + 16 j + i, 4 with weights 240 + 4 j + i, where i
is the byte and j the digit, then d f16. A byte b is the fraction b / 256 in base 3: digit j is what stands before the
point in 3 * (b * 3**j % 256) / 256.
"""

import numpy as np
from numpy.typing import NDArray

from seventy.formats import Format, set_halves
from seventy.formats.description import Fields, Quants, SuperBlocks
from seventy.formats.tq2_0 import scales
from seventy.jit.build import Value
from seventy.jit.simd import as_bytes


def place(unit: int) -> tuple[int, int]:
    """Return where the four weights of a unit are: the offset of their bytes, and the digit within each."""
    if unit < 40:
        return unit % 8 * 4, unit // 8
    return (32 + unit % 4 * 4, (unit - 40) // 4) if unit < 60 else (48, unit - 60)


def digits(fields: Fields, offset: int, digit: int) -> Value:
    """Multiply four fractions by 3**digit and keep the fractional part."""
    if digit == 0:
        return as_bytes(fields.word(offset))
    before = fields.once((offset, digit - 1), lambda: digits(fields, offset, digit - 1))
    return before + before + before


def word(fields: Fields, unit: int, shift: int) -> Value:
    offset, digit = place(unit)
    rest = fields.once((offset, digit), lambda: digits(fields, offset, digit))
    ones, zeros = (fields.f.constant(rest.type, number) for number in (1, 0))
    # 3 * 86 and 3 * 171 are the least with 1 and 2 before the point.
    q = (rest >= 86).select(ones, zeros) + (rest >= 171).select(ones, zeros)
    return (q - 1).view(fields.word(offset).type)


def factors(fields: Fields) -> tuple[Value, ...]:
    return (fields.half(52),)


def dequantize(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d = blocks[:, 52:].copy().view(np.float16).astype(np.float32)
    powers = 3 ** np.arange(5, dtype=np.uint8)
    parts = [
        (blocks[:, None, start:end] * powers[:digits, None]).reshape(len(blocks), -1)
        for start, end, digits in ((0, 32, 5), (32, 48, 5), (48, 52, 4))
    ]
    q = np.concatenate(parts, axis=1).astype(np.uint16) * 3 >> 8
    return (q.astype(np.float32) - 1) * d


FORMAT = Format(
    name="TQ1_0",
    type_id=34,
    block=256,
    nbytes=54,
    halves=(52,),
    words=tuple(range(0, 52, 4)),
    weights=SuperBlocks(Quants(word, bits=2, signed=True, slow=True), 256, scales, factors),
    dequantize=dequantize,
    set_factors=set_halves(52),
)
