"""Matrix times activations: y[row, n] = sum over k of w[n, k] x[row, k], for any number of rows.

Threads claim chunks of panels; a panel is multiplied by all tiles of tokens while it lies in the cache. Each token's
sum is built in the same order whatever the tile, so a row's result does not depend on its company.
"""

from collections.abc import Iterator
from contextlib import nullcontext

from seventy.formats import PANEL, by_name
from seventy.formats.tile import Tile
from seventy.jit.build import Function, Module, Value, Variable
from seventy.jit.types import f32, i64, pointer
from seventy.kernels.abi import Kernel, tile_widths
from seventy.kernels.activations import KINDS, section_bases

ARGUMENTS = (
    "rows", "panels", "n_panels", "blocks", "chunk", "input", "capacity", "output", "output_stride", "bias",
    "accumulate", "nodes", "homes",
)  # fmt: skip


def build(module: Module, format_name: str) -> None:
    """Writes the kernel for one weight format.

    The output has `output_stride` bytes a row, 16 floats for each panel. Where `accumulate` is set the product is
    added to it; where `bias` is an address, the bias of each column is. Threads claim panels of their NUMA node first.
    """
    format = by_name(format_name)
    kind = KINDS[format.activation]
    widths = tile_widths(module.isa.lanes)
    tiles = {width: _tile(module, format_name, width) for width in widths}
    k = Kernel(module, ARGUMENTS)
    f = k.f
    rows, blocks, n_panels, chunk = k.count("rows"), k("blocks"), k("n_panels"), k("chunk")
    columns = blocks * format.block
    bases = section_bases(f, kind, k("input", pointer), k("capacity"), columns)
    panel_bytes = blocks * format.panel_block
    with k.claim_by_node(n_panels, chunk, k("nodes"), k("homes", pointer)) as (first, limit):
        last = (first + chunk).minimum(limit)
        with f.loop(first, last) as panel:
            weights = k("panels", pointer) + panel * panel_bytes
            done = f.variable(i64, 0)
            for width in widths:
                end = done.get() + (rows - done.get()) // width * width
                with f.loop(done.get(), end, width) as row:
                    inputs = [base + row * (columns // c * 4) for base, c in zip(bases, kind.sections, strict=True)]
                    output = k("output", pointer) + row * k("output_stride") + panel * (4 * PANEL)
                    bias = k("bias", pointer) + panel * (4 * PANEL)
                    f.call(
                        tiles[width].name, None,
                        weights, blocks, output, k("output_stride"), k("bias"), bias, k("accumulate"), *inputs,
                    )  # fmt: skip
                done.set(end)


def _tile(module: Module, format_name: str, width: int) -> Function:
    """One panel times `width` tokens."""
    format = by_name(format_name)
    kind = KINDS[format.activation]
    lanes = module.isa.lanes
    parameters = [pointer, i64, pointer, i64, i64, pointer, i64, *(pointer for _ in kind.sections)]
    f = module.function(f"tile{width}", parameters, internal=True)
    weights, blocks, output, stride, has_bias, bias, accumulate, *inputs = f.arguments
    parts = PANEL // lanes
    # One row reads as fast as the CPU's own prefetching lets it; more rows leave it idle too long to run ahead.
    ahead = 4096 if width >= 4 else 0
    vector = f32 * lanes
    # The sums of all 16 rows; where a vector holds fewer, the parts take turns in the registers.
    sums = f.memory(4 * PANEL * width)

    def each() -> Iterator[tuple[Value, Value, Value]]:
        """Every part of every token: where its sum is, its output and its bias."""
        for part in range(parts):
            for t in range(width):
                place = sums + 4 * lanes * (part * width + t)
                yield place, output + stride * t + 4 * lanes * part, bias + 4 * lanes * part

    for place, _, _ in each():
        f.store(f.constant(vector, 0), place)
    with f.when(has_bias > 0):
        for place, _, source in each():
            f.store(f.load(vector, source), place)
    with f.when(accumulate > 0):
        for place, source, _ in each():
            f.store(f.load(vector, source), place)
    def multiply(block: Value, count: int) -> None:
        """Adds the products of `count` blocks; more than one are summed by themselves first."""
        with f.loop(parts) if parts > 1 else nullcontext(f.constant(i64, 0)) as part:
            row = part * (4 * lanes)
            totals = [Variable(f, vector, sums + row * width + 4 * lanes * t) for t in range(width)]
            here = totals if count == 1 else [f.variable(vector, 0) for _ in range(width)]
            for place in (block + i if i else block for i in range(count)):
                address = weights + place * format.panel_block
                each_unit = zip(inputs, kind.sections, strict=True)
                units = [x + place * (format.block // covered * 4 * width) for x, covered in each_unit]
                halves, words = address + part * (2 * lanes), address + row + 32 * len(format.halves)
                format.multiply(Tile(f, lanes, width, halves, words, units, here, ahead))
            if count > 1:
                for total, some in zip(totals, here, strict=True):
                    total.set(total.get() + some.get())

    # Blocks of one number: each addition would wait for the one before.
    together = 8 if format.block == 1 else 1
    whole = blocks // together * together if together > 1 else blocks
    with f.loop(0, whole, together) as block:
        multiply(block, together)
    if together > 1:
        with f.loop(whole, blocks) as block:
            multiply(block, 1)
    for place, target, _ in each():
        f.store(f.load(vector, place), target)
    return f
