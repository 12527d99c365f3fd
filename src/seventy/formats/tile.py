"""What a format sees while it multiplies one block of a panel by a tile of tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from seventy.jit.build import Function, Value, Variable
from seventy.jit.simd import (
    dot_bytes,
    dot_signed,
    fma,
    halves_to_float,
    multiply_pairs,
    pair_sums,
    pick_bytes,
)
from seventy.jit.types import Type, f32, i8, i16, i32, u16

# A word of weights, or what makes it.
Word = Value | Callable[[], Value]


class Kept:
    """What `multiply` makes of a block's weights, kept at `memory` for the many tiles of a prompt.

    A pass without tokens writes it, and notes in `slots` what it wrote; passes with tokens read it in the same order.
    """

    def __init__(self, slots: list[Type], memory: Value, writes: bool) -> None:
        self._slots, self._place, self._writes = slots, memory, writes
        self._read = iter(() if writes else slots)

    def __call__(self, make: Callable[[], Value]) -> Value:
        f, place = self._place.function, self._place
        if self._writes:
            value = make()
            self._slots.append(value.type)
            f.store(value, place)
        else:
            value = f.load(next(self._read), place)
        self._place = place + value.type.nbytes
        return value


@dataclass(frozen=True, slots=True)
class Tile:
    """`lanes` rows of a panel's block times `tokens` rows of activations; LLVM splits vectors the CPU does not have.

    `halves` and `words` point to the 16-bit and 32-bit fields of the first of these rows; `inputs` to the block's
    share of each activation section (kernels/activations.py), where unit u of token t lies at 4 * (u * tokens + t)
    bytes; `totals` are the sums to add to, one vector of `lanes` floats a token. Each word asks for the one `ahead`
    bytes further on. What is made of weights comes from `kept` where there is one.
    """

    f: Function
    lanes: int
    tokens: int
    halves: Value
    words: Value
    inputs: Sequence[Value]
    totals: Sequence[Variable]
    ahead: int = 0
    kept: Kept | None = None

    def keep(self, make: Callable[[], Value]) -> Value:
        """What `make` makes, or made for an earlier tile."""
        return self.kept(make) if self.kept else make()

    def half(self, index: int) -> Value:
        """The index-th 16-bit field of every row, as f32."""
        return halves_to_float(self.f.load(u16 * self.lanes, self.halves, index * 32))

    def raw_half(self, index: int) -> Value:
        """The index-th 16-bit field of every row, as u16."""
        return self.f.load(u16 * self.lanes, self.halves, index * 32)

    def word(self, index: int, first: bool = True) -> Value:
        """The index-th 32-bit field of every row; `first` unless it has been read before."""
        if self.ahead and first:
            self.f.prefetch(self.words, index * 64 + self.ahead)
        return self.f.load(i32 * self.lanes, self.words, index * 64)

    def input(self, section: int, unit: int, token: int, type: Type = i32) -> Value:
        """One unit of an activation section, broadcast to every lane."""
        return self.f.broadcast(type * self.lanes, self.inputs[section], 4 * (unit * self.tokens + token))

    def zero(self, type: Type = i32) -> Value:
        return self.f.constant(type * self.lanes, 0)

    def add(self, token: int, value: Value) -> None:
        self.totals[token].set(self.totals[token].get() + value)

    def dots(self, weights: Sequence[Word], unit: int, start: Sequence[Value] | None = None) -> list[Value]:
        """Unsigned weight words times input words unit, unit + 1, ...: an i32 vector for each token, exactly.

        On maddubs 8-word sums must fit 16 bits, as those of 4-bit weights do.
        """
        sums = list(start) if start else [self.zero()] * self.tokens
        if self.f.isa.dot == "maddubs":
            ones = self.f.constant(i16 * (2 * self.lanes), 1)
            pairs = self.pair_sums(weights, unit)
            return [total + multiply_pairs(pair, ones) for total, pair in zip(sums, pairs, strict=True)]
        for g, weight in self._one_by_one(weights):
            for t in range(self.tokens):
                sums[t] = dot_bytes(sums[t], weight, self.input(0, unit + g, t))
        return sums

    def pair_sums(self, weights: Sequence[Word], unit: int, start: Sequence[Value] | None = None) -> list[Value]:
        """For each token the 16-bit sums of pairs over all the words, plus `start`, modulo 2**16 (maddubs only)."""
        totals = list(start) if start else []
        for g, weight in self._one_by_one(weights):
            for t in range(self.tokens):
                pair = pair_sums(weight, self.input(0, unit + g, t))
                if g or start:
                    totals[t] = totals[t] + pair
                else:
                    totals.append(pair)
        return totals

    def signed_dots(
        self, weights: Sequence[Word], unit: int, scale: Value | None = None, start: Sequence[Value] | None = None
    ) -> list[Value]:
        """The same of signed weights, times 16-bit `scale` pairs (maddubs only) where given; not for vnni."""
        sums = list(start) if start else [self.zero()] * self.tokens
        for g, weight in self._one_by_one(weights):
            for t in range(self.tokens):
                sums[t] = dot_signed(sums[t], weight, self.input(0, unit + g, t), scale)
        return sums

    def _one_by_one(self, weights: Sequence[Word]) -> Iterator[tuple[int, Value]]:
        """Each word made when it is used."""
        for g, weight in enumerate(weights):
            yield g, self.keep(weight) if callable(weight) else weight


class ScaledSums:
    """For each token the sum over sub-blocks of scale times product, scales being bytes.

    On maddubs it is an exact integer (a 16-bit sum is multiplied by its scale while it is widened); elsewhere it is
    a float. `limit` is how many words of weights a 16-bit sum can hold, with what it starts from.
    """

    def __init__(self, tile: Tile, limit: int, signed: bool) -> None:
        self.tile, self.limit, self.signed = tile, limit, signed
        self.integer = tile.f.isa.dot == "maddubs"
        self.sums = [tile.zero(i32 if self.integer else f32)] * tile.tokens

    def add(
        self, weights: Sequence[Word], unit: int, scales: Value, byte: int, start: Sequence[Value] | None = None
    ) -> None:
        """Adds byte `byte` of `scales` times (weights times inputs from `unit` on, plus `start`).

        On maddubs a start is a pair of 16-bit numbers, one for each half of the words.
        """
        tile = self.tile
        if self.integer:
            assert start is None or len(weights) <= self.limit, "several sums, and one start"
            scale = tile.keep(lambda: self._scale_pairs(scales, byte))
            begin = [pair.view(i16 * (2 * tile.lanes)) for pair in start] if start else None
            for first in range(0, len(weights), self.limit):
                pairs = tile.pair_sums(weights[first : first + self.limit], unit + first, begin)
                self.sums = [s + multiply_pairs(pair, scale) for s, pair in zip(self.sums, pairs, strict=True)]
            return
        scale = tile.keep(lambda: (_signed_byte(scales, byte) if self.signed else pick_bytes(scales, byte)).to(f32))
        for t, dot in enumerate(tile.dots(weights, unit, start)):
            self.sums[t] = fma(dot.to(f32), scale, self.sums[t])

    def _scale_pairs(self, scales: Value, byte: int) -> Value:
        """The scale byte in both 16-bit halves of its lane."""
        n = 4 * self.tile.lanes
        zeros = self.tile.f.constant(i8 * n, 0)
        lane = (n, byte, n, byte) if self.signed else (byte, n, byte, n)
        indices = [i if i == n else i + 4 * row for row in range(self.tile.lanes) for i in lane]
        pairs = scales.view(i8 * n).shuffle(indices, zeros).view(i16 * (n // 2))
        return pairs >> 8 if self.signed else pairs

    def floats(self) -> list[Value]:
        return [value.to(f32) for value in self.sums]


def _signed_byte(words: Value, byte: int) -> Value:
    shifted = words << (24 - 8 * byte) if byte < 3 else words
    return shifted >> 24
