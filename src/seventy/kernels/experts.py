"""Matrices of experts times the rows routed to them: y[slot, n] = sum over k of w[expert of slot][n, k] x[.., k].

Threads claim panels of active experts. The rows of an expert, which lie apart, are gathered as tiles, some at a time,
and multiplied as kernels/matmul.py does it: the sum of a row is the same as there, whatever its company.
"""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Function, Module, Value
from seventy.jit.types import i32, i64, pointer
from seventy.kernels.abi import Kernel, tile_widths
from seventy.kernels.activations import KINDS, Kind, section_bases
from seventy.kernels.matmul import panels_function

ARGUMENTS = (
    "panels", "n_panels", "blocks", "chunk", "input", "capacity", "inputs", "active", "starts", "output",
    "output_stride", "bias", "prompt_columns",
)  # fmt: skip
# What a thread gathers at a time: with the weights of a claim it should lie in an L2.
_GATHERED_BYTES = 1 << 18
# So many claims for each thread, that none waits long for another; a claim has `chunk` panels at most.
_CLAIMS_PER_THREAD = 4
_LANES = 16


def build(module: Module, format_name: str) -> None:
    """Multiply each slot (kernels/route.py) by its expert's matrix.

    `panels` are the matrices of all experts, `n_panels` of `blocks` blocks each. `input` are activations whose rows lie
    one after the other; slot s reads row inputs[s]. Where `bias` is an address, the expert's row of it, f32 [experts,
    n_panels * 16], is added. `prompt_columns` is as in kernels/matmul.py.
    """
    format = by_name(format_name)
    kind = KINDS[format.activation]
    panels, gather = panels_function(module, format), _gather(module, kind)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    blocks, n_panels = k("blocks"), k("n_panels")
    columns = blocks * format.block
    bases = section_bases(f, kind, k("input", pointer), k("capacity"), columns)
    gathered = f.memory(_GATHERED_BYTES)
    row_bytes = sum((columns // covered * 4 for covered in kind.sections), f.constant(i64, 0))
    widest = tile_widths(module.isa.lanes)[0]
    at_once = (f.constant(i64, _GATHERED_BYTES) // row_bytes // widest * widest).maximum(1)
    tile_bases = section_bases(f, kind, gathered, at_once, columns)

    n_active = f.load(i32, k("active", pointer)).to(i64)
    wanted = (k.threads * _CLAIMS_PER_THREAD + (n_active - 1)) // n_active
    chunk = ((n_panels + (wanted - 1)) // wanted).minimum(k("chunk"))
    parts = (n_panels + (chunk - 1)) // chunk
    with k.claim(n_active * parts) as item:
        which, first = item // parts, item % parts * chunk
        expert = f.load(i32, k("active", pointer), which * 4 + 4).to(i64)
        start, end = (f.load(i32, k("starts", pointer), which * 4 + 4 * i).to(i64) for i in (0, 1))
        panel = expert * n_panels + first
        with f.loop(start, end, at_once) as slot:
            rows, row_list = (end - slot).minimum(at_once), k("inputs", pointer) + slot * 4
            places = [f.variable(pointer, base) for base in tile_bases]
            with f.when(rows.eq(1)):
                # A tile of one row needs no gathering.
                for place, base, covered in zip(places, bases, kind.sections, strict=True):
                    place.set(base + f.load(i32, row_list).to(i64) * (columns // covered * 4))
            with f.when(rows > 1):
                f.call(gather.name, None, rows, row_list, columns, *bases, *tile_bases)
            f.call(
                panels.name, None, k("panels", pointer) + panel * (blocks * format.panel_block),
                (n_panels - first).minimum(chunk), blocks, rows,
                k("output", pointer) + slot * k("output_stride") + first * (4 * PANEL), k("output_stride"),
                k("bias"), k("bias", pointer) + panel * (4 * PANEL), f.constant(i64, 0), k("prompt_columns"),
                *(place.get() for place in places),
            )  # fmt: skip


def _gather(module: Module, kind: Kind) -> Function:
    """Writes `gather`: rows that lie one after the other, by their numbers, as tiles that lie one after the other."""
    n, sections = len(kind.sections), kind.sections
    f = module.function("gather", [i64, pointer, i64, *[pointer] * (2 * n)], internal=True)
    rows, row_list, columns, *bases = f.arguments
    done = f.variable(i64, 0)
    for width in tile_widths(module.isa.lanes):
        end = done.get() + (rows - done.get()) // width * width
        with f.loop(done.get(), end, width) as row:
            numbers = [f.load(i32, row_list, (row + t) * 4).to(i64) for t in range(width)]
            for source, target, covered in zip(bases[:n], bases[n:], sections, strict=True):
                units = columns // covered
                lines, tile = [source + number * (units * 4) for number in numbers], target + row * (units * 4)
                whole = units // _LANES * _LANES
                with f.loop(0, whole, _LANES) as unit:
                    words = _interleaved([[f.load(i32 * _LANES, line, unit * 4)] for line in lines])
                    for i, vector in enumerate(words):
                        f.store(vector, tile, unit * (4 * width) + i * (4 * _LANES))
                with f.loop(whole, units) as unit:
                    for t, line in enumerate(lines):
                        f.store(f.load(i32, line, unit * 4), tile, (unit * width + t) * 4)
        done.set(end)
    return f


def _interleaved(rows: list[list[Value]]) -> list[Value]:
    """The first word of each row, then the second of each; there are 1, 2, 4 or 8 rows."""
    if len(rows) == 1:
        return rows[0]
    pairs = zip(_interleaved(rows[::2]), _interleaved(rows[1::2]), strict=True)
    half = _LANES // 2
    orders = [[i // 2 + i % 2 * _LANES + start for i in range(_LANES)] for start in (0, half)]
    return [even.shuffle(order, odd) for even, odd in pairs for order in orders]
