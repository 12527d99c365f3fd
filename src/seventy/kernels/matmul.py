"""Matrix times activations: y[row, n] = sum over k of w[n, k] x[row, k], for any number of rows.

Threads claim chunks of panels; a panel is multiplied by all tiles of tokens while it lies in the cache. The many
tiles of a prompt share what is made of the weights, some columns of the whole chunk at a time, whose inputs then lie
in the cache too. One row reads two panels side by side: memory gives more to a core that reads in two places. Each
token's sum is built in the same order whatever the tile, so a row's result does not depend on its company.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from seventy.formats import PANEL, Format, by_name
from seventy.formats.description import Fields
from seventy.jit.build import Function, Module, Value, Variable
from seventy.jit.isa import waits_for_memory
from seventy.jit.types import Type, f32, i64, pointer
from seventy.kernels.abi import Kernel, tile_widths
from seventy.kernels.activations import KINDS, section_bases
from seventy.kernels.product.vector import Tile, UnpackedCache, multiply

ARGUMENTS = (
    "rows", "panels", "n_panels", "blocks", "chunk", "input", "capacity", "output", "output_stride", "bias",
    "accumulate", "prompt_columns", "nodes", "thread_nodes",
)  # fmt: skip
# 64 KB of weights as bytes, and some more for scales: any L2 has room for it.
MOST_PROMPT_COLUMNS = 4096
# The sums of some panels' products with all rows of a prompt: with what is kept, and the inputs of some columns, they
# should lie in an L2.
_SUMS_BYTES = 1 << 17
# Unpacking weights once costs what a few tiles save; fewer of formats that unpack slowly.
_PROMPT_TILES, _SLOW_PROMPT_TILES = 8, 3


def prompt_columns(lanes: int) -> tuple[int, ...]:
    """List the values of the argument `prompt_columns` at `lanes` lanes, the default first (docs/lab.md)."""
    return (0, 1024) if lanes == 16 else (1024, MOST_PROMPT_COLUMNS, 0)


def build(module: Module, format_name: str) -> None:
    """Build the matrix product for one weight format.

    The output has rows of `output_stride` bytes, 16 floats per panel. If `accumulate` is set, the product is added to
    it; if `bias` is an address, the bias of each column is added. A prompt's tiles cover `prompt_columns` at a time (a
    multiple of 256, at most MOST_PROMPT_COLUMNS; 0: all, and no unpacked weights are kept). Formats that unpack slowly
    always take MOST_PROMPT_COLUMNS. Threads claim panels of their NUMA node first.
    """
    format = by_name(format_name)
    panels = panels_function(module, format)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    rows, blocks, chunk = k.count("rows"), k("blocks"), k("chunk")
    kind = KINDS[format.activation]
    bases = section_bases(f, kind, k("input", pointer), k("capacity"), blocks * format.block)
    with k.claim_by_node(k("n_panels"), chunk, k("nodes"), k("thread_nodes", pointer)) as (first, limit):
        weights = k("panels", pointer) + first * (blocks * format.panel_block)
        output = k("output", pointer) + first * (4 * PANEL)
        bias = k("bias", pointer) + first * (4 * PANEL)
        f.call(
            panels.name, None, weights, (first + chunk).minimum(limit) - first, blocks, rows, output,
            k("output_stride"), k("bias"), bias, k("accumulate"), k("prompt_columns"), *bases,
        )  # fmt: skip


def panels_function(module: Module, format: Format, padded: bool = False) -> Function:
    """Write the function `panels`: the product of consecutive panels with all tiles of some rows.

    Its arguments: the first panel, the number of panels, blocks per panel, the number of rows, the address of the first
    panel's output columns and the bytes between output rows, whether there is a bias and its address, whether to add to
    the output, the columns per prompt tile, and the address of each section of the rows' activations. With `padded`,
    the rows left over after the widest whole tiles are a single tile, laid out as one of the next larger width.
    """
    widths: Sequence[int] = tile_widths(module.isa.lanes)
    widths = range(widths[0], 0, -1) if padded else widths
    tiles = {width: tile_function(module, format, width) for width in widths}
    # Elsewhere a turn that is shorter than a block of 256 columns gains nothing.
    long_turns = format.block == 256 or (format.block > 1 and waits_for_memory())
    side_by_side = tile_function(module, format, 1, streams=2) if long_turns else None
    # Vectors of 512 bits unpack most formats as fast as the L2 delivers (docs/lab.md).
    prompt = _prompt_function(module, format, tiles) if module.isa.lanes < 16 or format.slow else None
    f = module.function("panels", _parameters(format), internal=True)
    c = _call_of(f, format)

    def multiply_all() -> None:
        half = zero = f.constant(i64, 0)
        if side_by_side:
            half = c.rows.eq(1).select(c.n_panels // 2, zero)
            with f.loop(half) as panel:
                c.tile(side_by_side, 1, zero, panel, c.output(panel), c.stride, zero, c.blocks, half)
        with f.loop(half * 2, c.n_panels) as panel:
            for width, row in _tiles(f, c.rows, widths):
                c.tile(tiles[width], width, row, panel, c.output(panel, row), c.stride, zero, c.blocks)

    if prompt:
        few = (_SLOW_PROMPT_TILES if format.slow else _PROMPT_TILES) * widths[0]
        is_prompt = (c.rows >= few) & (_prompt_blocks(c) > 0)
        with f.when(is_prompt):
            f.call(prompt.name, None, *f.arguments)
        with f.when(is_prompt.eq(0)):
            multiply_all()
    else:
        multiply_all()
    return f


def _parameters(format: Format) -> list[Type]:
    sections = KINDS[format.activation].sections
    return [pointer, i64, i64, i64, pointer, i64, i64, pointer, i64, i64, *(pointer for _ in sections)]


@dataclass(frozen=True, slots=True)
class _Call:
    """The arguments of `panels_function`."""

    format: Format
    panels: Value
    n_panels: Value
    blocks: Value
    rows: Value
    outputs: Value
    stride: Value
    biased: Value
    biases: Value
    add: Value
    prompt_columns: Value
    bases: Sequence[Value]

    def output(self, panel: Value, row: Value | int = 0) -> Value:
        """Return the address of a panel's columns of a row's output."""
        return self.outputs + self.stride * row + panel * (4 * PANEL)

    def weights(self, panel: Value, block: Value) -> Value:
        return self.panels + (panel * self.blocks + block) * self.format.panel_block

    def tile(
        self, tile: Function, width: int, row: Value, panel: Value, output: Value, stride: Value, start: Value,
        step: Value, *more: Value,
    ) -> None:  # fmt: skip
        """Multiply the rows from `row` on by up to `step` blocks from `start` on.

        Where `start` is not 0, what is at `output` is the sum of the blocks before.
        """
        format, columns = self.format, self.blocks * self.format.block
        inputs = [
            base + row * (columns // covered * 4) + start * (format.block // covered * 4 * _room(tile.module, width))
            for base, covered in zip(self.bases, KINDS[format.activation].sections, strict=True)
        ]
        first = start.eq(0)
        row.function.call(
            tile.name, None, self.weights(panel, start), (self.blocks - start).minimum(step), output, stride,
            first.select(self.biased, 0), self.biases + panel * (4 * PANEL), first.select(self.add, 1), *inputs, *more,
        )  # fmt: skip


def _call_of(f: Function, format: Format) -> _Call:
    panels, n_panels, blocks, rows, outputs, stride, biased, biases, add, columns, *bases = f.arguments
    return _Call(format, panels, n_panels, blocks, rows, outputs, stride, biased, biases, add, columns, bases)


def _prompt_blocks(c: _Call) -> Value:
    """How many blocks a prompt's tiles go over at a time; 0 where nothing is kept."""
    return c.prompt_columns.maximum(MOST_PROMPT_COLUMNS if c.format.slow else 0) // c.format.block


def _tiles(f: Function, rows: Value, widths: Sequence[int]) -> Iterator[tuple[int, Value]]:
    """Every tile's width and first row: as many of each width, the widest first, as there are rows left for.

    What follows in the body of a loop over this is written into a loop of the function.
    """
    done = f.variable(i64, 0)
    for width in widths:
        end = done.get() + (rows - done.get()) // width * width
        with f.loop(done.get(), end, width) as row:
            yield width, row
        done.set(end)


def _room(module: Module, width: int) -> int:
    """How many rows a tile of so many has room for."""
    return min(w for w in tile_widths(module.isa.lanes) if w >= width)


def _prompt_function(module: Module, format: Format, tiles: dict[int, Function]) -> Function:
    """Writes `prompt`, which is as `panels`, for many tiles: they share what is made of the weights.

    Some columns of some panels at a time. Their sums lie close together meanwhile, not a row of the output apart: so
    they stay in the cache from one part of the columns to the next.
    """
    slots: list[Type] = []
    keep = _keep(module, format, slots)
    widest = max(tiles)
    # Of floats nothing is kept.
    kept_tile = tile_function(module, format, widest, slots) if slots else None
    f = module.function("prompt", _parameters(format), internal=True)
    c = _call_of(f, format)
    step = _prompt_blocks(c)
    kept = f.memory(MOST_PROMPT_COLUMNS // format.block * (PANEL // _lanes(module)) * _kept_bytes(slots))
    sums = f.memory(_SUMS_BYTES)
    # More rows than that are a step of no prompt that we know of, and right all the same.
    together = f.constant(i64, _SUMS_BYTES // (4 * PANEL)) // c.rows
    direct = together.eq(0)
    group = direct.select(c.n_panels, together)
    with f.loop(0, c.n_panels, group) as first:
        some = (c.n_panels - first).minimum(group)
        target, stride = direct.select(c.output(first), sums), direct.select(c.stride, some * (4 * PANEL))
        with f.when((direct.eq(0)) & (c.add > 0)):
            _copy(f, c.output(first), c.stride, sums, stride, c.rows, some)
        with f.loop(0, c.blocks, step) as start, f.loop(some) as i:
            panel = first + i
            if kept_tile:
                f.call(keep.name, None, c.weights(panel, start), (c.blocks - start).minimum(step), kept)
            for width, row in _tiles(f, c.rows, tuple(tiles)):
                output = target + row * stride + i * (4 * PANEL)
                if kept_tile and width == widest:
                    # Of each block of the next panel, the i-th tile asks for the i-th line.
                    line = c.weights(panel + 1, start) + row * (64 // width)
                    c.tile(kept_tile, width, row, panel, output, stride, start, step, kept, line)
                else:
                    c.tile(tiles[width], width, row, panel, output, stride, start, step)
        with f.when(direct.eq(0)):
            _copy(f, sums, stride, c.output(first), c.stride, c.rows, some)
    return f


def _copy(
    f: Function, source: Value, source_stride: Value, target: Value, target_stride: Value, rows: Value, panels: Value
) -> None:
    """Copies some panels' columns of all rows."""
    with f.loop(rows) as row, f.loop(panels) as panel:
        column = panel * (4 * PANEL)
        f.store(f.load(f32 * PANEL, source + row * source_stride, column), target + row * target_stride, column)


def _lanes(module: Module) -> int:
    """Rows of a panel in one pass. Two vectors go together, so that an input is broadcast once; four are too many."""
    return PANEL if module.isa.lanes >= 8 else module.isa.lanes


def _kept_bytes(slots: list[Type]) -> int:
    """Bytes kept of one pass over a block."""
    return sum(slot.nbytes for slot in slots)


def _keep(module: Module, format: Format, slots: list[Type]) -> Function:
    """Writes what a prompt's tiles keep of a panel's blocks; `slots` learns what a pass keeps."""
    f = module.function("keep", [pointer, i64, pointer], internal=True)
    weights, blocks, memory = f.arguments
    lanes = _lanes(module)
    place = f.variable(pointer, memory)
    with f.loop(blocks) as block, f.loop(0, PANEL, lanes) as row:
        slots.clear()
        kept = UnpackedCache(slots, place.get(), writes=True)
        fields = Fields(f, lanes, format.places, weights + block * format.panel_block, row)
        multiply(Tile(fields, 0, [], [], kept), format)
        place.set(place.get() + _kept_bytes(slots))
    return f


def _asks_ahead(format: Format) -> bool:
    """Whether even one or two rows ask for weights to come. Q5_K is slower so on Zen 3, too (docs/lab.md)."""
    return waits_for_memory() and format.block > 1 and format.name != "Q5_K"


def tile_function(
    module: Module, format: Format, width: int, slots: list[Type] | None = None, streams: int = 1
) -> Function:
    """Some blocks of one panel times `width` tokens.

    With `slots` it finds in memory what `_keep` wrote, and asks for a line of other blocks, to be kept soon. With two
    `streams` it takes whole rows of a second panel too, so many panels further on.
    """
    kind = KINDS[format.activation]
    lanes, room = _lanes(module), _room(module, width)
    more = [pointer, pointer] if slots else [i64] if streams > 1 else []
    parameters = [pointer, i64, pointer, i64, i64, pointer, i64, *(pointer for _ in kind.sections), *more]
    name = f"{'kept' if slots else 'tile' if streams == 1 else 'streams'}{width}"
    f = module.function(name, parameters, internal=True)
    weights, blocks, output, stride, has_bias, bias, accumulate, *inputs = f.arguments
    memory, line = (inputs.pop(-2), inputs.pop()) if slots else (None, None)
    apart = inputs.pop() if streams > 1 else f.constant(i64, 0)
    # One row reads as fast as the CPU's own prefetching lets it; more rows leave it idle too long to run ahead.
    ahead = 0 if slots else 4096 if width > 2 else 1024 if _asks_ahead(format) else 0
    vector = f32 * lanes
    # The sums of all 16 rows; where a pass has fewer, they take turns in the registers.
    sums = f.memory(4 * PANEL * width * streams)

    def each() -> Iterator[tuple[Value, Value, Value]]:
        """Every pass's rows of every token: where their sums are, their output and their bias."""
        for stream in range(streams):
            place, column = sums + stream * (4 * PANEL * width), apart * (stream * 4 * PANEL)
            for row in range(0, PANEL, lanes):
                for t in range(width):
                    at = 4 * (row * width + lanes * t)
                    yield place + at, output + stride * t + column + 4 * row, bias + column + 4 * row

    for place, _, _ in each():
        f.store(f.constant(vector, 0), place)
    with f.when(has_bias > 0):
        for place, _, source in each():
            f.store(f.load(vector, source), place)
    with f.when(accumulate > 0):
        for place, source, _ in each():
            f.store(f.load(vector, place) + f.load(vector, source), place)

    def add_blocks(block: Value, count: int, stream: int) -> None:
        """Adds the products of `count` blocks; more than one are summed by themselves first."""
        panel, place = weights + apart * blocks * (stream * format.panel_block), sums + stream * (4 * PANEL * width)
        with f.loop(0, PANEL, lanes) if lanes < PANEL else nullcontext(f.constant(i64, 0)) as row:
            totals = [Variable(f, vector, place + row * (4 * width) + 4 * lanes * t) for t in range(width)]
            here = totals if count == 1 else [f.variable(vector, 0) for _ in range(width)]
            for at in (block + i if i else block for i in range(count)):
                each_unit = zip(inputs, kind.sections, strict=True)
                units = [x + at * (format.block // covered * 4 * room) for x, covered in each_unit]
                kept = None
                if slots and memory and line:
                    f.prefetch(line, at * format.panel_block)
                    kept = UnpackedCache(slots, memory + (at * PANEL + row) // lanes * _kept_bytes(slots), writes=False)
                fields = Fields(f, lanes, format.places, panel + at * format.panel_block, row, ahead)
                multiply(Tile(fields, width, units, here, kept, room), format)
            if count > 1:
                for total, some in zip(totals, here, strict=True):
                    total.set(total.get() + some.get())

    # Blocks of one number: each addition would wait for the one before.
    together = 8 if format.block == 1 else 1
    whole = blocks // together * together if together > 1 else blocks
    for start, end, count in ((0, whole, together), (whole, blocks, 1))[: 2 if together > 1 else 1]:
        with f.loop(start, end, count) as block:
            for stream in range(streams):
                f.keep_order()
                add_blocks(block, count, stream)
    for place, target, _ in each():
        f.store(f.load(vector, place), target)
    return f
