"""Rows of a packed matrix as floats: the token embedding, without a second copy of a tied one."""

from collections.abc import Iterator

from seventy.formats import PANEL, Format, by_name
from seventy.formats.description import Blocks, Fields, Floats, Quants, SuperBlocks
from seventy.jit.build import Module, Value
from seventy.jit.simd import as_bytes, lookup16, pick_bytes
from seventy.jit.types import Type, f32, i8, i32, i64, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "panels", "blocks", "tokens", "output", "output_stride")


def build(module: Module, format_name: str) -> None:
    """Build the kernel of output[row] = matrix[tokens[row]]."""
    format = by_name(format_name)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    with k.claim(k.count("rows")) as row:
        token = f.load(i32, k("tokens", pointer), row * 4).to(i64)
        panel = k("panels", pointer) + (token // PANEL) * (k("blocks") * format.panel_block)
        output = k("output", pointer) + row * k("output_stride")
        with f.loop(k("blocks")) as block:
            fields = Fields(f, 1, format.places, panel + block * format.panel_block, token % PANEL)
            for i, weights in enumerate(_weights(fields, format)):
                f.store(weights, output + block * (4 * format.block), i * weights.type.nbytes)


def _weights(fields: Fields, format: Format) -> Iterator[Value]:
    """The weights of a block in order, rounded as Format.dequantize does: a float, or four at a time."""
    weights = format.weights
    if isinstance(weights, Floats):
        yield weights.weight(fields)
        return
    for index, factors in enumerate(_factors(fields, weights, format.block)):
        factor, *minimum = (value.shuffle([0] * 4) for value in factors)
        for unit in range(index * weights.size // 4, (index + 1) * weights.size // 4):
            product = _integers(fields, weights.quants, unit) * factor
            yield product + minimum[0] if minimum else product


def _factors(fields: Fields, weights: Blocks | SuperBlocks, columns: int) -> Iterator[tuple[Value, ...]]:
    """What the integers of each `size` columns are multiplied by [and what is added to them]."""
    if isinstance(weights, Blocks):
        yield from (weights.factors(fields, index) for index in range(columns // weights.size))
        return
    scales, mins = weights.scales(fields), weights.mins(fields) if weights.mins else []
    d, *dmin = weights.factors(fields)
    for index in range(columns // weights.size):
        yield d * _byte(scales, index, weights.signed), *(-(d * _byte(mins, index, False)) for d in dmin)


def _byte(words: list[Value], index: int, signed: bool) -> Value:
    """Byte `index` of some words, as f32."""
    byte = pick_bytes(words[index // 4], index % 4)
    return (as_bytes(byte, i8).shuffle([0]) if signed else byte.view(i32 * 1)).to(f32)


def _integers(fields: Fields, quants: Quants, unit: int) -> Value:
    """The four integers of columns 4 * unit on, as f32."""
    word = quants.word(fields, unit, 0)
    numbers = lookup16(word, quants.table) if quants.table else as_bytes(word, Type("i" if quants.signed else "u", 8))
    return numbers.to(f32) - float(quants.offset)
