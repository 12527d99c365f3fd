"""What a format says about its weights: where their bytes come from, and what they are multiplied by.

Every description is written with the fields of one block for several rows at once: a row lies in each lane of a
vector. It does not know how many lanes there are, what the CPU can do, or what the weights are multiplied with: that is
kernels/product/.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from seventy.jit.build import Function, Value
from seventy.jit.simd import halves_to_float
from seventy.jit.types import Type, i32, u8, u16, u32

T = TypeVar("T")


class Fields:
    """The fields of one block of a panel, for `lanes` neighbouring rows; a field is named by its offset in the block.

    `places` says where the 16 rows of each field begin in the panel's block (Format.places), `first_row` which of them
    lies in lane 0. With `ahead` the first reading of a word asks for the cache line so many bytes further on.
    """

    def __init__(
        self, f: Function, lanes: int, places: Mapping[int, int], block: Value, first_row: Value, ahead: int = 0
    ) -> None:
        self.f, self.lanes, self._places, self._ahead = f, lanes, places, ahead
        self._rows = {size: block + first_row * size for size in (1, 2, 4)}
        self._asked: set[int] = set()
        self._made: dict[Hashable, Any] = {}

    def _load(self, type: Type, offset: int) -> Value:
        return self.f.load(type * self.lanes, self._rows[type.nbytes], self._places[offset])

    def byte(self, offset: int) -> Value:
        """Load the 8-bit field at `offset` of every row, as i32."""
        return self._load(u8, offset).to(i32)

    def bits(self, offset: int) -> Value:
        """Load the 16-bit field at `offset` of every row, as u32."""
        return self._load(u16, offset).to(u32)

    def half(self, offset: int) -> Value:
        """Load the half-precision field at `offset` of every row, as f32."""
        return halves_to_float(self._load(u16, offset))

    def word(self, offset: int) -> Value:
        """Load the 32-bit field at `offset` of every row, as u32."""
        if self._ahead and offset not in self._asked:
            self.f.prefetch(self._rows[4], self._places[offset] + self._ahead)
            self._asked.add(offset)
        return self._load(u32, offset)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the result of `make`, computed once per key: values that several units share."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def constant(self, word: int) -> Value:
        """Return the same 32 bits for every row."""
        return self.f.constant(u32 * self.lanes, word)


def pick(words: Value, first: int, bits: int, to: int = 0) -> Value:
    """Move bits `first` to `first + bits - 1` of every byte of u32 lanes to bit `to`; clear all others."""
    right = first - to
    moved = words >> right if right > 0 else words << -right if right else words
    return moved & (((1 << bits) - 1 << to) * 0x01010101)


@dataclass(frozen=True, slots=True)
class Quants:
    """The integers of a block, four neighbouring ones of a row in the bytes of a 32-bit lane.

    `word(fields, unit, shift)` makes those of columns 4 * unit to 4 * unit + 3, each of `bits` bits and shifted left by
    `shift` bits within its byte. The integer of such a number q is q - offset; where there is a `table`, table[q]
    (q of 4 bits, never shifted); where `signed`, the byte itself as a signed one (never shifted). `slow` words take
    longer to make than to read back from a cache, whatever the width of vectors.
    """

    word: Callable[[Fields, int, int], Value]
    bits: int
    offset: int = 0
    table: tuple[int, ...] = ()
    signed: bool = False
    slow: bool = False

    def __post_init__(self) -> None:
        assert not self.table or (self.bits, len(self.table)) == (4, 16), "tables have 16 entries"
        assert not (self.signed and (self.offset or self.table)), "signed bytes are the integers"

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the largest integer."""
        if self.table:
            return min(self.table), max(self.table)
        if self.signed:
            return -(1 << self.bits - 1), (1 << self.bits - 1) - 1
        return -self.offset, (1 << self.bits) - 1 - self.offset


@dataclass(frozen=True, slots=True)
class Floats:
    """Blocks of one weight, which is a float: `weight(fields)`, as f32."""

    weight: Callable[[Fields], Value]


@dataclass(frozen=True, slots=True)
class Blocks:
    """w = d * integer [+ m], with a float d [and m] for every `size` columns.

    `factors(fields, i)` makes d [and m] of the block's i-th `size` columns, as f32.
    """

    quants: Quants
    factors: Callable[[Fields, int], tuple[Value, ...]]
    size: int = 32


@dataclass(frozen=True, slots=True)
class SuperBlocks:
    """w = d * scale * integer [- dmin * min] in blocks of 256; scale and min are integers, of each `size` columns.

    `scales(fields)` and `mins(fields)` make u32 words of four bytes each: those of columns size * i on are byte i % 4
    of word i // 4. Mins are unsigned, scales are where not `signed`. `factors(fields)` makes d [and dmin], as f32.
    `order` has the sub-blocks in the order in which their fields lie in a panel.
    """

    quants: Quants
    size: int
    scales: Callable[[Fields], list[Value]]
    factors: Callable[[Fields], tuple[Value, ...]]
    mins: Callable[[Fields], list[Value]] | None = None
    signed: bool = False
    order: tuple[int, ...] = ()

    @property
    def sub_blocks(self) -> tuple[int, ...]:
        return self.order or tuple(range(256 // self.size))
