"""Products by vector instructions: a panel's rows lie in the lanes, inputs are broadcast to all of them.

Bytes are multiplied as the ISA level can: four at a time into 32 bits (vnni), two at a time into 16 bits (maddubs), or
widened to 16 bits first (widen). The first two multiply unsigned weights only: an offset makes them unsigned, and the
sections 2 to 4 of the inputs (kernels/activations.py) hold what takes it away again. On maddubs, integers that leave no
room for an offset in 16 bits give their signs to the inputs instead.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from seventy.formats import Format
from seventy.formats.description import Blocks, Fields, Floats, Quants, SuperBlocks
from seventy.jit.build import Function, Value, Variable
from seventy.jit.simd import (
    add_pairs,
    as_bytes,
    dot_bytes,
    dot_signed,
    fma,
    lookup16,
    multiply_pairs,
    pair_sums,
    pick_bytes,
    signed_pair_sums,
)
from seventy.jit.types import Type, f32, i8, i16, i32, u32

_LARGEST_INPUT = 127


class UnpackedCache:
    """Values made of a block's weights, kept at `memory` for the many tiles of a prompt.

    A pass without tokens writes them and notes their places in `slots`; passes with tokens read them in the same order.
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
    """A block of some rows of a panel, to be multiplied by `tokens` rows of inputs.

    `inputs` point to the block's share of each activation section (kernels/activations.py), where unit u of token t
    lies at 4 * (u * room + t) bytes (`room` defaults to `tokens`); `totals` are the sums to add to: for each token a
    vector with a row in each lane. Values made of weights come from `kept` if it is given. LLVM splits vectors that the
    CPU does not have.
    """

    fields: Fields
    tokens: int
    inputs: Sequence[Value]
    totals: Sequence[Variable]
    kept: UnpackedCache | None = None
    room: int = 0

    @property
    def f(self) -> Function:
        return self.fields.f

    @property
    def dot(self) -> str:
        return self.f.isa.dot

    @property
    def words(self) -> Type:
        """A word for every row."""
        return i32 * self.fields.lanes

    @property
    def pairs(self) -> Type:
        """The vector type with two 16-bit numbers for every row."""
        return i16 * (2 * self.fields.lanes)

    def keep(self, make: Callable[[], Value]) -> Value:
        """Return the result of `make`, or the one kept from an earlier tile."""
        return self.kept(make) if self.kept else make()

    def input(self, section: int, unit: int, token: int, type: Type = i32) -> Value:
        """Load one unit of an activation section, in every lane."""
        place = 4 * (unit * (self.room or self.tokens) + token)
        return self.f.broadcast(type * self.fields.lanes, self.inputs[section], place)

    def each_input(self, section: int, unit: int) -> list[Value]:
        """Load one unit of an activation section for every token."""
        return [self.input(section, unit, t) for t in range(self.tokens)]

    def zeros(self, type: Type = i32) -> list[Value]:
        """Return a vector of zeros for every token."""
        return [self.f.constant(type * self.fields.lanes, 0)] * self.tokens

    def add(self, token: int, *products: tuple[Value, Value]) -> None:
        """Add products (pairs of factors) to a token's totals, one after another."""
        total = self.totals[token].get()
        for a, b in products:
            total = fma(a, b, total)
        self.totals[token].set(total)


def multiply(tile: Tile, format: Format) -> None:
    """Add the product of a block to the tile's totals."""
    weights = format.weights
    if isinstance(weights, Floats):
        weight = weights.weight(tile.fields)
        for t in range(tile.tokens):
            tile.add(t, (weight, tile.input(0, 0, t, f32)))
    elif isinstance(weights, Blocks):
        for index in range(format.block // weights.size):
            _multiply_block(tile, weights, index)
    else:
        _multiply_super_block(tile, weights)


def _multiply_block(tile: Tile, weights: Blocks, index: int) -> None:
    """d * dot * scale of the inputs [+ m * sum of the inputs], for the index-th factors of a block."""
    integers, units = _Bytes(tile, weights.quants), weights.size // 4
    first, shift = index * units, 0
    if integers.subtracts:
        # 2**shift times the product: the input section's -128 times its sum is then the offset.
        shift = _log2(128 // integers.offset)
        offsets = tile.each_input(3, index)
        if tile.dot == "maddubs":
            # Fewer products of larger weights would fit 16 bits.
            dots = [(dot << shift) + o for dot, o in zip(integers.dots(first, units), offsets, strict=True)]
        else:
            dots = integers.dots(first, units, shift, offsets)
    else:
        dots = integers.dots(first, units)
    d, *m = weights.factors(tile.fields, index)
    d = d * 2.0**-shift
    for t, dot in enumerate(dots):
        scaled = dot.to(f32) * tile.input(1, index, t, f32)
        tile.add(t, (scaled, d), *((minimum, tile.input(2, index, t, f32)) for minimum in m))


def _multiply_super_block(tile: Tile, weights: SuperBlocks) -> None:
    """(d * sum of scale * dot [- dmin * sum of min * sum of inputs]) * scale of the inputs."""
    scales = [word.view(tile.words) for word in weights.scales(tile.fields)]
    mins = weights.mins(tile.fields) if weights.mins else []
    sums = (_IntegerSums if tile.dot == "maddubs" else _FloatSums)(tile, weights)
    for index in weights.sub_blocks:
        tile.f.keep_order()
        sums.add(index, scales[index // 4], index % 4)
    d, *dmin = weights.factors(tile.fields)
    d = d * 2.0**-sums.shift
    minimums = _sums_of_mins(tile, mins, weights.size) if mins else []
    for t, total in enumerate(sums.sums):
        product = total.to(f32) * d
        tile.add(t, (product - minimums[t] * dmin[0] if minimums else product, tile.input(1, 0, t, f32)))


def _sums_of_mins(tile: Tile, mins: list[Value], size: int) -> list[Value]:
    """For each token the sum of min times the sum of its inputs, as floats."""

    def pair(word: Value, shift: int) -> Value:
        """Mins 0 and 2 of a word, or 1 and 3, as 16-bit pairs: the input section's sums lie in this order."""
        return ((word >> shift) & 0x00FF00FF).view(tile.words)

    pairs = [tile.keep(partial(pair, word, shift)) for word in mins for shift in (0, 8)]
    sums = tile.zeros()
    for t in range(tile.tokens):
        for unit, two in enumerate(pairs):
            sums[t] = add_pairs(sums[t], two, tile.input(2 if size == 32 else 4, unit, t))
    return [total.to(f32) for total in sums]


class _Bytes:
    """A block's integers as the bytes that this ISA level multiplies.

    Where `subtracts`, they are unsigned and too large by `offset`; else they are the integers.
    """

    def __init__(self, tile: Tile, quants: Quants) -> None:
        self.tile, self.quants = tile, quants
        least, most = quants.bounds
        # A power of two: the input sections hold multiples of such.
        self.offset = 1 << (-least - 1).bit_length() if least < 0 else 0
        # Beyond 32 there is no room in 16 bits for the sum of the 16 columns that share an offset.
        self.signed = tile.dot != "vnni" and max(-least, most) > 32 and (quants.signed or bool(quants.table))
        self.subtracts = self.offset > 0 and not self.signed
        self.largest = most + self.offset if self.subtracts else max(-least, most)
        assert quants.offset in (0, self.offset), f"the offset {quants.offset} is no power of two"

    def _word(self, unit: int, shift: int) -> Value:
        quants, fields = self.quants, self.tile.fields
        offset = self.offset if self.subtracts else 0
        if quants.table:
            word = lookup16(quants.word(fields, unit, 0), [(value + offset) << shift for value in quants.table])
        elif quants.signed:
            word = as_bytes(quants.word(fields, unit, 0)) + offset
            word = word.view(u32 * fields.lanes) << shift
        else:
            word = quants.word(fields, unit, shift)
        return word.view(self.tile.words)

    def _words(self, first: int, units: int, shift: int) -> Iterator[tuple[int, Value]]:
        """Units and their words from unit `first` on, shifted left by `shift`; each is made when it is used."""
        for unit in range(first, first + units):
            yield unit, self.tile.keep(partial(self._word, unit, shift))

    def dots(self, first: int, units: int, shift: int = 0, start: Sequence[Value] | None = None) -> list[Value]:
        """Multiply the words by the inputs and add `start`: an exact i32 vector for each token."""
        tile, sums = self.tile, list(start or self.tile.zeros())
        if tile.dot == "maddubs":
            ones, limit = tile.f.constant(tile.pairs, 1), _products_in_16_bits(self.largest << shift)
            for some in range(first, first + units, limit):
                for t, pairs in self.pair_sums(some, min(limit, first + units - some), shift):
                    sums[t] = sums[t] + multiply_pairs(pairs, ones)
            return sums
        multiplied = dot_signed if self.signed else dot_bytes
        for unit, word in self._words(first, units, shift):
            for t in range(tile.tokens):
                sums[t] = multiplied(sums[t], word, tile.input(0, unit, t))
        return sums

    def pair_sums(
        self, first: int, units: int, shift: int = 0, start: Sequence[Value] | None = None
    ) -> Iterator[tuple[int, Value]]:
        """Yield tokens and their 16-bit sums of pairs over all the words, plus `start`, modulo 2**16 (maddubs only).

        For a single word they are yielded as they are made, to be used at once: there are not enough registers for all.
        """
        multiplied = signed_pair_sums if self.signed else pair_sums
        totals = dict(enumerate(start or ()))
        for unit, word in self._words(first, units, shift):
            for t in range(self.tile.tokens):
                pairs = multiplied(word, self.tile.input(0, unit, t))
                totals[t] = pairs = totals[t] + pairs if t in totals else pairs
                if units == 1:
                    yield t, pairs
        if units > 1:
            yield from totals.items()


class _FloatSums:
    """For each token the sum over sub-blocks of scale times product, times 2**shift, as a float."""

    def __init__(self, tile: Tile, weights: SuperBlocks) -> None:
        self._tile, self._weights, self._bytes = tile, weights, _Bytes(tile, weights.quants)
        self.sums = tile.zeros(f32)
        # The input section has -32 times its sums: 2**shift times the product is smaller by 32 times the inputs.
        self.shift = _log2(32 // self._bytes.offset) if self._bytes.subtracts and self._bytes.offset < 32 else 0

    def add(self, index: int, scales: Value, byte: int) -> None:
        """Add the sub-block `index`, whose scale is this byte of `scales`."""
        tile, units = self._tile, self._weights.size // 4
        signed = self._weights.signed
        scale = tile.keep(lambda: (_signed_byte(scales, byte) if signed else pick_bytes(scales, byte)).to(f32))
        start = self._start(index * units, units) if self._bytes.subtracts else None
        for t, dot in enumerate(self._bytes.dots(index * units, units, self.shift, start)):
            self.sums[t] = fma(dot.to(f32), scale, self.sums[t])

    def _start(self, first: int, units: int) -> list[Value]:
        """For each token minus the offset times 2**shift times the sum of its inputs."""
        starts = self._tile.each_input(3, first // 4)
        for unit in range(first // 4 + 1, (first + units) // 4):
            starts = [a + b for a, b in zip(starts, self._tile.each_input(3, unit), strict=True)]
        up = _log2((self._bytes.offset << self.shift) // 32)
        return [start << up for start in starts]


class _IntegerSums:
    """The same as an exact integer, for maddubs: a 16-bit sum is multiplied by its scale while it is widened."""

    def __init__(self, tile: Tile, weights: SuperBlocks) -> None:
        self._tile, self._weights, self._bytes = tile, weights, _Bytes(tile, weights.quants)
        self.sums = tile.zeros()
        self._down = _log2(32 // self._bytes.offset) if self._bytes.subtracts else 0
        # One row of inputs is easier to shift than its weights.
        self.shift = 0 if tile.tokens == 1 else self._down

    def add(self, index: int, scales: Value, byte: int) -> None:
        """Add the sub-block `index`, whose scale is this byte of `scales`."""
        units = self._weights.size // 4
        scale = self._tile.keep(lambda: self._scale_pairs(scales, byte))
        # Each 16 columns start at their offset; sums may leave 16 bits on the way, for they come back.
        step = 4 if self._bytes.subtracts else min(units, _products_in_16_bits(self._bytes.largest))
        for first in range(index * units, (index + 1) * units, step):
            start = self._start(first // 4) if self._bytes.subtracts else None
            for t, pairs in self._bytes.pair_sums(first, min(step, (index + 1) * units - first), self.shift, start):
                self.sums[t] = self.sums[t] + multiply_pairs(pairs, scale)

    def _start(self, unit: int) -> list[Value]:
        """For each token a pair of 16-bit numbers, one for each half of the words."""
        down = self._down - self.shift
        return [start.view(self._tile.pairs) >> down for start in self._tile.each_input(3, unit)]

    def _scale_pairs(self, scales: Value, byte: int) -> Value:
        """The scale byte in both 16-bit halves of its lane."""
        lanes, signed = self._tile.fields.lanes, self._weights.signed
        n = 4 * lanes
        zeros = self._tile.f.constant(i8 * n, 0)
        lane = (n, byte, n, byte) if signed else (byte, n, byte, n)
        indices = [i if i == n else i + 4 * row for row in range(lanes) for i in lane]
        pairs = scales.view(i8 * n).shuffle(indices, zeros).view(self._tile.pairs)
        return pairs >> 8 if signed else pairs


def _log2(number: int) -> int:
    return number.bit_length() - 1


def _products_in_16_bits(largest: int) -> int:
    """How many sums of two products with weights up to `largest` can be added in 16 bits."""
    return ((1 << 15) - 1) // (2 * _LARGEST_INPUT * largest)


def _signed_byte(words: Value, byte: int) -> Value:
    shifted = words << (24 - 8 * byte) if byte < 3 else words
    return shifted >> 24
