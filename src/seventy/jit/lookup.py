"""Lookups in tables that no register holds: by permutes where the CPU has VBMI, else by loads, never by gathers.

A permute of bytes looks up 64 indices (of 512 bits) in 128 entries at once; a larger table takes several, and a choice
between them for each bit of the index that is left. Points of eight numbers of 2 bits, or of four of 3 bits, are two
bytes each, so that 256 of them take four permutes for 64 indices. (docs/lab.md has what each way costs.)
"""

from collections.abc import Sequence

from seventy.jit.build import Value
from seventy.jit.simd import as_bytes, intrinsic, pick_bits
from seventy.jit.types import i64, u8, u16, u32

Points = Sequence[Sequence[int]]


def lookup_units(low: Value, high: Value | None, points: Points, bits: int) -> "Units":
    """Look up four points in every u32 lane. Byte i of `low`, with byte i of `high` above it, is the i-th index.

    A point is four or eight numbers of `bits` bits (at most 4); there are as many points as indices. Bits of `high`
    beyond the index are ignored.
    """
    return (_Planes if low.function.isa.vbmi and low.type.nbytes >= 16 else _Entries)(low, high, points, bits)


class Units:
    """Numbers that were looked up, four of a lane at a time: unit i has the i-th four in the bytes of every lane."""

    def __getitem__(self, unit: int) -> Value:
        raise NotImplementedError


class _Planes(Units):
    """By permutes: each byte of a point has a table of its own, and is looked up for all four indices."""

    def __init__(self, low: Value, high: Value | None, points: Points, bits: int) -> None:
        self._bits, self._size, self._type = bits, len(points[0]), low.type
        self._each = 8 // bits
        tables = [
            [sum(number << bits * i for i, number in enumerate(point[first : first + self._each])) for point in points]
            for first in range(0, self._size, self._each)
        ]
        self._planes = [lookup_bytes(low, high, table) for table in tables]

    def __getitem__(self, unit: int) -> Value:
        index, first = divmod(4 * unit, self._size)
        places = [divmod(first + i, self._each) for i in range(4)]
        positions = [8 * index + self._bits * within for _, within in places]
        picked = {plane: pick_bits(self._planes[plane], positions, self._bits) for plane, _ in places}
        # From one plane or from two.
        (a, one), (_, other) = next(iter(picked.items())), list(picked.items())[-1]
        if one is other:
            return one
        n = self._type.nbytes
        chosen = [i if places[i % 4][0] == a else i + n for i in range(n)]
        return as_bytes(one).shuffle(chosen, as_bytes(other)).view(self._type)


class _Entries(Units):
    """By loads from a table of 32-bit entries, lane by lane."""

    def __init__(self, low: Value, high: Value | None, points: Points, bits: int) -> None:
        f, self._type, self._size = low.function, low.type, len(points[0])
        self._mask = ((1 << bits) - 1) * 0x01010101
        # Where a point has eight numbers, the second four lie in the upper nibbles.
        entries = [sum(number << 8 * (i % 4) + 4 * (i // 4) for i, number in enumerate(point)) for point in points]
        self._table, self._upper = f.table(u32, entries), len(entries) // 256 - 1
        self._found: dict[int, Value] = {}
        # Through memory: a lane of a vector costs two instructions, a load of a byte is half of one.
        self._indices = f.opaque(f.memory(low.type.nbytes * (2 if high else 1)))
        if high:
            even, odd = (
                (word & 0x00FF00FF) | ((up & (0x00010001 * self._upper)) << 8)
                for word, up in ((low, high), (low >> 8, high >> 8))
            )
            f.store(even, self._indices)
            f.store(odd, self._indices, low.type.nbytes)
        else:
            f.store(low, self._indices)

    def _lookup(self, index: int) -> Value:
        """The entries at the index-th index of every lane."""
        f = self._indices.function
        one, start = (u16, index % 2 * self._type.nbytes + index // 2 * 2) if self._upper else (u8, index)
        entries = f.constant(self._type, 0)
        for lane in range(self._type.lanes):
            place = f.load(one, self._indices, start + 4 * lane).to(i64)
            entries = entries.with_lane(lane, f.load(u32, self._table + place * 4))
        return entries

    def __getitem__(self, unit: int) -> Value:
        index, half = divmod(unit, self._size // 4)
        if index not in self._found:
            self._found[index] = self._lookup(index)
        entries = self._found[index]
        return entries if self._size == 4 else (entries >> 4 * half if half else entries) & self._mask


def lookup_bytes(low: Value, high: Value | None, table: Sequence[int]) -> Value:
    """Look up table[i] for every index: its lowest 8 bits are a byte of `low`, the others a byte of `high` (VBMI only).

    A table of 2**n entries reads n bits of the index.
    """
    f, n = low.function, low.type.nbytes
    if n > 4 * f.isa.lanes:
        a, b = (
            lookup_bytes(as_bytes(low).shuffle(half), as_bytes(high).shuffle(half) if high else None, table)
            for half in (range(n // 2), range(n // 2, n))
        )
        return a.shuffle(range(n), b).view(low.type)
    indices = as_bytes(low)
    names = {16: "avx512.vpermi2var.qi.128", 32: "avx512.vpermi2var.qi.256", 64: "avx512.vpermi2var.qi.512"}
    padded = [*table, *[0] * (-len(table) % (2 * n))]
    vectors = [f.vector(u8 * n, padded[i : i + n]) for i in range(0, len(padded), n)]
    level = [intrinsic(f, names, indices.type, a, indices, b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    bit = (2 * n).bit_length() - 1
    while len(level) > 1:
        source = as_bytes(high) if high and bit >= 8 else indices
        clear = (source & (1 << bit % 8)).eq(0)
        level = [clear.select(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
        bit += 1
    return level[0].view(low.type)
