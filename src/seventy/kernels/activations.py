"""The inputs of a matrix product: floats made into what the weights' format multiplies.

A kind is a list of sections. In a section, unit u of token t of a tile that starts at row s and holds w tokens lies
at s * row_bytes + 4 * (u * w + t) from the section's start, so that a kernel broadcasts one unit of one token with
one load. All units have 4 bytes.

q8_256   0: four q; 1: scale of 256; 2: sums of 32 q, as 16-bit pairs of blocks (0,2) (1,3) (4,6) (5,7);
         3: -32 times the sum of 16 q, on maddubs a 16-bit pair: of the first two of each four, of the last two;
         4: sums of 16 q, as 16-bit pairs (0,2) (1,3) of each four
q8_32    0: four q; 1: scale of 32; 2: scale times the sum of 32 q, f32; 3: -128 times the sum of 32 q
q8_16    the same of 16
f32      0: one number
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import exp, fma, max_lanes, round_to_int, sum_lanes
from seventy.jit.types import f32, i8, i32, i64, pointer
from seventy.kernels.abi import Kernel, tile_of, tile_widths

_LANES = 16
# Rows that one thread makes: whole tiles of any width; and how many columns of them. A norm takes more: every part
# needs the whole row's.
_GROUP, _COLUMNS, _FEW_ROWS_COLUMNS = 8, 2048, 512
# Of GELU's tanh form: twice the root of 2 / pi, and what the cube counts.
_GELU, _GELU_CUBE = 2 * (2 / math.pi) ** 0.5, 0.044715
# Of the clamped SwiGLU.
_LIMIT, _STEEPNESS = 7.0, 1.702
Read = Callable[[Value, int], Value]
Put = Callable[[int, Value, Value], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """`sections` are the columns each unit covers, in the order of the sections."""

    block: int
    sections: tuple[int, ...]

    def row_bytes(self, columns: int) -> tuple[int, ...]:
        return tuple(4 * (columns // covered) for covered in self.sections)

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * sum(self.row_bytes(columns))


KINDS = {
    "q8_256": Kind(256, (4, 256, 64, 16, 32)),
    "q8_32": Kind(32, (4, 32, 32, 32)),
    "q8_16": Kind(16, (4, 16, 16, 16)),
    "f32": Kind(1, (1,)),
}

ARGUMENTS = ("rows", "output", "capacity", "columns", "a", "a_stride", "b", "b_stride", "epsilon", "row_map")


def section_bases(f: Function, kind: Kind, base: Value, capacity: Value, columns: Value) -> list[Value]:
    """Return where each section of a buffer for `capacity` rows begins."""
    bases = []
    for covered in kind.sections:
        bases.append(base)
        base = base + capacity * (columns // covered * 4)
    return bases


def build(module: Module, source: str, kind_name: str, one_by_one: bool = False) -> None:
    """Build the kernel that converts rows of floats to activations, the inputs of matrix products.

    `source` is `plain` (a), `norm` (RMSNorm: a / rms(a) * b), `swiglu` (silu(a) * b), `sigmoid` (sigmoid(a) * b),
    `geglu` (gelu(a) * b, in GELU's tanh form, Hendrycks and Gimpel 2016) or `clamped_swiglu` (gpt-oss: a *
    sigmoid(1.702 a) * (b + 1), with a at most 7 and b from -7 to 7). Row r is read from row row_map[r] if a map is
    given. With `one_by_one`, each row is a tile of its own.
    """
    k = Kernel(module, ARGUMENTS)
    f, kind = k.f, KINDS[kind_name]
    rows, columns, row_map = k.count("rows"), k("columns"), k("row_map", pointer)
    bases = section_bases(f, kind, k("output", pointer), k("capacity"), columns)
    # Rows of a tile lie side by side in a cache line: a thread writes all of a group, some columns of it.
    blocks = columns // kind.block
    few, many = (_COLUMNS, 1 << 30) if source == "norm" else (_FEW_ROWS_COLUMNS, _COLUMNS)
    some = (rows <= _GROUP).select(f.constant(i64, few // kind.block), many // kind.block)
    parts = (blocks + some - 1) // some

    def make(row: Value, first: Value) -> None:
        """Some blocks of a row, from `first` on."""
        start, width = tile_of(f, row, rows, (1,) if one_by_one else tile_widths(module.isa.lanes))
        token = row - start
        places = [base + start * (columns // c * 4) for base, c in zip(bases, kind.sections, strict=True)]
        line = f.variable(i64, row)
        with f.when(k("row_map") > 0):
            line.set(f.load(i32, row_map, row * 4).to(i64))
        a = k("a", pointer) + line.get() * k("a_stride")
        b = k("b", pointer) + line.get() * k("b_stride")
        factor = inverse_rms(k, a, columns) if source == "norm" else None

        def read(offset: Value, lanes: int) -> Value:
            x = f.load(f32 * lanes, a, offset) if lanes else f.load(f32, a, offset)
            if source == "plain":
                return x
            other = f.load(x.type, b, offset)
            if factor is not None:
                return x * (factor.splat(lanes) if lanes else factor) * other
            if source == "swiglu":
                return x / (exp(-x) + 1.0) * other
            if source == "sigmoid":
                return other / (exp(-x) + 1.0)
            if source == "geglu":
                # (1 + tanh(y)) / 2 = 1 / (1 + e^-2y)
                twice = (x * x * _GELU_CUBE + 1.0) * x * _GELU
                return x / (exp(-twice) + 1.0) * other
            assert source == "clamped_swiglu", source
            # Not maximum() and minimum(): they would make a number of NaN.
            gate, up = ((value > _LIMIT).select(_LIMIT, value) for value in (x, other))
            up = (up < -_LIMIT).select(-_LIMIT, up)
            return gate / (exp(gate * -_STEEPNESS) + 1.0) * (up + 1.0)

        def put(section: int, unit: Value, value: Value) -> None:
            """Writes a unit, or several that follow each other."""
            if one_by_one or not value.type.lanes:
                f.store(value, places[section], (unit * width + token) * 4)
            else:
                for i in range(value.type.lanes):
                    f.store(value.lane(i), places[section], ((unit + i) * width + token) * 4)

        with f.loop(first, (first + some).minimum(blocks)) as block:
            if kind_name == "f32":
                put(0, block, read(block * 4, 0))
            else:
                _quantize(f, kind, block, read, put)

    with k.claim((rows + (_GROUP - 1)) // _GROUP * parts) as item:
        group = item // parts * _GROUP
        with f.loop(group, (group + _GROUP).minimum(rows)) as row:
            make(row, item % parts * some)


def inverse_rms(k: Kernel, a: Value, columns: Value) -> Value:
    """Compute 1 / sqrt(mean(a^2) + epsilon); columns past the last 16 are added one by one."""
    f = k.f
    total = f.variable(f32 * _LANES, 0)
    whole = columns // _LANES * _LANES
    with f.loop(0, whole, _LANES) as i:
        x = f.load(f32 * _LANES, a, i * 4)
        total.set(fma(x, x, total.get()))
    rest = f.variable(f32, sum_lanes(total.get()))
    with f.loop(whole, columns) as i:
        x = f.load(f32, a, i * 4)
        rest.set(x * x + rest.get())
    mean = rest.get() / columns.to(f32) + f.load(f32, k("epsilon", pointer))
    return 1.0 / f.call("llvm.sqrt.f32", f32, mean)


def _quantize(f: Function, kind: Kind, block: Value, read: Read, put: Put) -> None:
    vectors = kind.block // _LANES
    buffer = f.memory(kind.block * 4)
    # The largest as bits: there NaN is above all numbers, so that it becomes the scale and is not lost.
    largest = f.variable(i32 * _LANES, 0)
    with f.loop(vectors) as v:
        x = read((block * vectors + v) * (4 * _LANES), _LANES)
        f.store(x, buffer, v * (4 * _LANES))
        largest.set((x.view(i32 * _LANES) & 0x7FFFFFFF).maximum(largest.get()))
    amax = max_lanes(largest.get()).view(f32)
    scale = amax * (1 / 127)
    inverse = (amax > 0).select(127.0 / amax, 0.0).splat(_LANES)

    def quantized(v: Value) -> tuple[Value, Value]:
        """Writes the 16 q of vector v and returns two sums: of the first two of each four, of the last two."""
        q = round_to_int(f.load(f32 * _LANES, buffer, v * (4 * _LANES)) * inverse)
        put(0, (block * vectors + v) * (_LANES // 4), q.to(i8).view(i32 * (_LANES // 4)))
        eight = q.shuffle(range(8)) + q.shuffle(range(8, 16))
        four = eight.shuffle(range(4)) + eight.shuffle(range(4, 8))
        return four.lane(0) + four.lane(1), four.lane(2) + four.lane(3)

    put(1, block, scale)
    if kind is not KINDS["q8_256"]:
        halves = [half for v in range(vectors) for half in quantized(f.constant(i64, v))]
        total = sum(halves, f.constant(i32, 0))
        put(2, block, total.to(f32) * scale)
        put(3, block, total * -128)
        return
    sums = f.memory(4 * vectors)

    def pair(low: Value, high: Value) -> Value:
        return (low & 0xFFFF) | (high << 16)

    with f.loop(vectors) as v:
        low, high = quantized(v)
        f.store(low + high, sums, v * 4)
        offset = pair(low * -32, high * -32) if f.isa.dot == "maddubs" else (low + high) * -32
        put(3, block * vectors + v, offset)

    def sum16(j: int) -> Value:
        return f.load(i32, sums, 4 * j)

    for unit in range(vectors // 2):
        j = unit // 2 * 4 + unit % 2
        put(4, block * (vectors // 2) + unit, pair(sum16(j), sum16(j + 2)))
    for unit in range(vectors // 4):
        j = unit // 2 * 4 + unit % 2
        low, high = (sum16(2 * i) + sum16(2 * i + 1) for i in (j, j + 2))
        put(2, block * (vectors // 4) + unit, pair(low, high))
