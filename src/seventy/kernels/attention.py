"""Grouped-query attention over a paged KV cache (kernels/pages.py).

Pages are read one after the other, keys and then values, and merged into softmax sums at once (Dao,
FlashAttention-2): so the CPU's own prefetching sees one stream. Threads share a row's past as kernels/parts.py says.
The rows of a prompt go over a page together; each one's sums are built as if it were alone (values of rows after it are
multiplied by zero, so they must be finite).

With a window a row sees its own position and the `window` - 1 before it (Beltagy et al. 2020, Longformer). Pages wholly
before the window are not read; parts begin where they would without a window, so that a row's are cut by its position
alone. A sink is a score without a value (Xiao et al. 2023, StreamingLLM): it joins the sum of weights at the end.
"""

from collections.abc import Sequence

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import any_lane, exp, exp_of_negative, fma, halves_to_float, max_lanes, sum_lanes
from seventy.jit.types import f32, i8, i32, i64, pointer, u16
from seventy.kernels.abi import Kernel
from seventy.kernels.pages import BLOCK, PAGE, Layout
from seventy.kernels.parts import PARTS, Rows, share

# A part has at least so many positions, a multiple of PAGE.
SHORTEST_PART = 512
# With more rows times KV heads than this every thread has work enough without sharing rows.
SHARED = 64
# A tile has at most so many rows, and so many heads in all.
_TILE_ROWS, _TILE_HEADS = 8, 32
# Bytes from what is read to what the cache is asked for; many heads leave memory idle for long.
_AHEAD = 8192
_LOWEST = -3e38

ARGUMENTS = (
    "rows", "positions", "segments", "tables", "table_stride", "queries", "query_stride", "cache", "n_pages", "scales",
    "scale_span", "output", "output_stride", "scratch", "sinks", "window",
)  # fmt: skip


def _part_bytes(heads: int, value_dim: int) -> int:
    """A part's result: each head's sum of weighted values, each head's sum of weights in 16 lanes, the maxima."""
    return 4 * heads * (value_dim + 16) + -(-4 * heads // 64) * 64


def scratch_bytes(kv_heads: int, group: int, value_dim: int) -> int:
    """Return the bytes of `scratch`, zero at first: counters and partial results of rows that threads share."""
    return max(SHARED, kv_heads) * (64 + PARTS * _part_bytes(group, value_dim))


def build(
    module: Module,
    kv_heads: int,
    group: int,
    key_dim: int,
    value_dim: int,
    kv: str,
    sinks: bool = False,
    windowed: bool = False,
) -> None:
    """Build the attention kernel: output[row, head] = softmax(scale * query . keys) . values.

    A row attends to positions 0 to its own. The scale of a row at position p is the f32 scales[p // scale_span]. Row r
    belongs to sequence segments[r], whose pages are listed in that row of `tables`, i32, rows `table_stride` bytes
    apart. With `sinks`, a score per head, f32 [heads], joins the softmax's denominator. With `windowed`, a row attends
    to the last `window` positions only, and nothing in the table before their first page is read.
    """
    layout = Layout(kv, key_dim, value_dim)
    k = Kernel(module, ARGUMENTS)
    one = _Rows(k, 1, group, layout, sinks, windowed)
    together = min(_TILE_ROWS, _TILE_HEADS // group)
    tile = _Rows(k, together, group, layout, sinks, windowed) if together > 1 else None

    def split(item: Value, most: Value) -> tuple[Value, Value, Value]:
        pair = item // most
        return pair // kv_heads, pair % kv_heads, item % most

    share(k, kv_heads, SHARED, _part_bytes(group, value_dim), one, tile, split)


class _Rows(Rows):
    """Rows with the `group` heads of one KV head."""

    def __init__(self, k: Kernel, n: int, group: int, layout: Layout, sinks: bool, windowed: bool) -> None:
        super().__init__(k, n, SHORTEST_PART, windowed)
        self.group, self.layout, self.sinks = group, layout, sinks
        self.heads = n * group
        self.row_bytes, self.output_bytes = 4 * group * layout.key_dim, 4 * group * layout.value_dim
        self._add_page = _page(k.f.module, n, group, layout, windowed)
        self._merge = _merge(k.f.module, self.heads, layout.value_dim)
        self._queries = k.f.memory(n * self.row_bytes)
        self._sums, self._part = (k.f.memory(_part_bytes(self.heads, layout.value_dim)) for _ in range(2))

    def compute(self, row: Value, head: Value, part: Value, result: Value) -> None:
        k, f, layout = self.k, self.k.f, self.layout
        length, table = self.length(row), k("tables", pointer) + self.segment(row) * k("table_stride")
        source = k("queries", pointer) + row * k("query_stride") + head * self.row_bytes
        for r in range(self.n):
            line, copy = source + k("query_stride") * r, self._queries + self.row_bytes * r
            scale = f.load(f32, k("scales", pointer), (length + (r - 1)) // k("scale_span") * 4).splat(16)
            with f.loop(0, self.row_bytes, 64) as i:
                f.store(f.load(f32 * 16, line, i) * scale, copy, i)
        _clear(f, result, self.heads, layout.value_dim)
        keys = layout.page(k("cache", pointer), k("n_pages"), head, f.constant(i64, 0))
        first = part * self.part_length(row)
        start = first.maximum(self.first_page(row)) if self.windowed else first
        with f.loop(start, (first + self.part_length(row)).minimum(length + (self.n - 1)), PAGE) as position:
            page = keys + f.load(i32, table, position // PAGE * 4).to(i64) * layout.nbytes
            hidden = [length - k("window") - position] if self.windowed else []
            f.call(self._add_page.name, None, self._queries, page, length - position, result, *hidden)

    def clear(self) -> None:
        _clear(self.k.f, self._sums, self.heads, self.layout.value_dim)

    def merge(self, part: Value) -> None:
        self.k.f.call(self._merge.name, None, self._sums, part)

    def finish(self, row: Value, head: Value) -> None:
        f, head_bytes = self.k.f, 4 * self.layout.value_dim
        for r in range(self.n):
            output = self.k("output", pointer) + (row + r) * self.k("output_stride") + head * self.output_bytes
            with f.loop(self.group) as g:
                of = g + r * self.group
                total = sum_lanes(f.load(f32 * 16, self._sums, of * 64 + self.heads * head_bytes))
                if self.sinks:
                    sink = f.load(f32, self.k("sinks", pointer), (head * self.group + g) * 4)
                    total = total + exp(sink - f.load(f32, self._sums, of * 4 + self.heads * (head_bytes + 64)))
                inverse = (1.0 / total).splat(16)
                with f.loop(0, head_bytes, 64) as i:
                    f.store(f.load(f32 * 16, self._sums, of * head_bytes + i) * inverse, output, g * head_bytes + i)

    def whole(self, row: Value, head: Value) -> None:
        self.clear()
        with self.k.f.loop(self.first_part(row), self.end_part(row)) as p:
            self.compute(row, head, p, self._part)
            self.merge(self._part)
        self.finish(row, head)


def _clear(f: Function, result: Value, heads: int, value_dim: int) -> None:
    with f.loop(0, 4 * heads * (value_dim + 16), 64) as i:
        f.store(f.constant(f32 * 16, 0), result, i)
    with f.loop(heads) as head:
        f.store(f.constant(f32, _LOWEST), result, 4 * heads * (value_dim + 16) + head * 4)


def _scale(f: Function, result: Value, head: Value, factor: Value, heads: int, value_dim: int) -> None:
    """Multiplies a head's sums."""
    with f.loop(0, 4 * value_dim, 64) as i:
        place = head * (4 * value_dim) + i
        f.store(f.load(f32 * 16, result, place) * factor.splat(16), result, place)
    place = head * 64 + 4 * heads * value_dim
    f.store(f.load(f32 * 16, result, place) * factor.splat(16), result, place)


def _merge(module: Module, heads: int, value_dim: int) -> Function:
    """Adds a part to what is merged already; changes the part too."""
    f = module.function(f"merge{heads}", [pointer, pointer], internal=True)
    whole, part = f.arguments
    with f.loop(heads) as head:
        at = head * 4 + 4 * heads * (value_dim + 16)
        before = [f.load(f32, result, at) for result in (whole, part)]
        maximum = before[0].maximum(before[1])
        f.store(maximum, whole, at)
        for result, old in zip((whole, part), before, strict=True):
            _scale(f, result, head, exp(old - maximum), heads, value_dim)
    with f.loop(0, 4 * heads * (value_dim + 16), 64) as i:
        f.store(f.load(f32 * 16, whole, i) + f.load(f32 * 16, part, i), whole, i)
    return f


def _page(module: Module, rows: int, group: int, layout: Layout, windowed: bool) -> Function:
    """Adds the first `count` positions of a page to the result of a row's heads, one more to that of the next row's.

    With a window the first `hidden` of them are left out, one more of the next row's; it may be less than 0.
    """
    f = module.function(f"page{rows}", [pointer, pointer, i64, pointer, *([i64] if windowed else [])], internal=True)
    queries, page, count, sums, *hidden = f.arguments
    work = _Page(f, rows, group, layout, page, sums)
    for some in work.heads:
        work.score(queries, some)
    with f.loop(work.n_heads) as head:
        work.weigh(head, work.seen(head, count, hidden), windowed)
    used = (count + (rows - 1)).minimum(PAGE)
    for some in work.heads:
        work.add_values(some, hidden[0].maximum(0) if windowed else 0, used)
    return f


class _Page:
    """One page, and the heads that go over it: their scores, weights and sums of values, one after the other."""

    def __init__(self, f: Function, rows: int, group: int, layout: Layout, page: Value, sums: Value) -> None:
        self.f, self.group, self.layout, self.page, self.sums = f, group, layout, page, sums
        self.lanes, self.n_heads = f.module.isa.lanes, rows * group
        self.quantized = layout.kind == "q8_0"
        self.totals = sums + 4 * self.n_heads * layout.value_dim
        self.maxima = self.totals + 64 * self.n_heads
        self.scores = f.memory(4 * self.n_heads * PAGE)
        self._weights = f.memory(4 * self.n_heads * PAGE) if self.quantized else self.scores
        # As many heads and vectors at once as registers hold.
        many = 8 if self.lanes == 16 else 4
        self.vectors = 2 if self.lanes > 4 else 1
        self.heads = [range(first, min(first + many, self.n_heads)) for first in range(0, self.n_heads, many)]

    def score(self, queries: Value, some: range) -> None:
        """Write the products of some heads' queries with the keys of all positions."""
        f, lanes, layout, vectors = self.f, self.lanes, self.layout, self.vectors
        span = BLOCK if self.quantized else layout.key_dim
        with f.loop(0, PAGE, lanes * vectors) as start:
            dots = {(g, v): f.variable(f32 * lanes, 0) for g in some for v in range(vectors)}
            with f.loop(0, layout.key_dim, span) as first:
                parts = {place: f.variable(f32 * lanes, 0) for place in dots} if self.quantized else dots
                with f.loop(first, first + span) as i:
                    self._ahead(some, i * PAGE + start)
                    for v in range(vectors):
                        self._apart()
                        key = self._number(self.page, i * PAGE + start + v * lanes)
                        for g in some:
                            query = f.broadcast(f32 * lanes, queries + i * 4, g * layout.key_dim * 4)
                            parts[g, v].set(fma(key, query, parts[g, v].get()))
                if self.quantized:
                    for v in range(vectors):
                        place = (first // BLOCK * PAGE + start + v * lanes) * 2
                        factor = halves_to_float(f.load(u16 * lanes, self.page + layout.key_factors, place))
                        for g in some:
                            dots[g, v].set(fma(parts[g, v].get(), factor, dots[g, v].get()))
            for (g, v), dot in dots.items():
                f.store(dot.get(), self.scores, (start + v * lanes) * 4 + g * PAGE * 4)

    def seen(self, head: Value, count: Value, hidden: Sequence[Value]) -> list[Value]:
        """Return masks of the positions of the page that a head attends to, one per vector of scores."""
        f, lanes = self.f, self.lanes
        ramps = [f.vector(i32 * lanes, range(first, first + lanes)) for first in range(0, PAGE, lanes)]
        valid = [ramp < (count + head // self.group).to(i32).splat(lanes) for ramp in ramps]
        for before in hidden:
            first = (before + head // self.group).to(i32).splat(lanes)
            valid = [ok & (ramp >= first) for ok, ramp in zip(valid, ramps, strict=True)]
        return valid

    def weigh(self, head: Value, valid: Sequence[Value], windowed: bool) -> None:
        """Make weights of a head's scores, and add them to its total."""
        f, lanes = self.f, self.lanes
        line = self.scores + head * (4 * PAGE)
        here = [ok.select(f.load(f32 * lanes, line, 4 * lanes * part), _LOWEST) for part, ok in enumerate(valid)]
        largest = here[0]
        for score in here[1:]:
            largest = score.maximum(largest)
        # Seldom so: the largest of all lanes is wanted then only.
        with f.when(any_lane(largest > f.broadcast(f32 * lanes, self.maxima, head * 4))):
            before, maximum = f.load(f32, self.maxima, head * 4), max_lanes(largest)
            f.store(maximum, self.maxima, head * 4)
            _scale(f, self.sums, head, exp(before - maximum), self.n_heads, self.layout.value_dim)
        shift = f.broadcast(f32 * lanes, self.maxima, head * 4)
        total = f.load(f32 * lanes, self.totals, head * 64)
        for part, score in enumerate(here):
            weight = exp_of_negative(score - shift)
            if windowed:
                # Where a row sees nothing of the page, nor of those before it, the largest score is the lowest, too.
                weight = valid[part].select(weight, 0.0)
            f.store(weight, line, 4 * lanes * part)
            total = total + weight
        f.store(total, self.totals, head * 64)

    def add_values(self, some: range, first_used: Value | int, used: Value) -> None:
        """Add the values of the positions from `first_used` to `used` to some heads' sums, times their weights."""
        f, lanes, layout = self.f, self.lanes, self.layout
        span = BLOCK if self.quantized else layout.value_dim
        wide = next(n for n in (self.vectors, 1) if span % (n * lanes) == 0)
        with f.loop(0, layout.value_dim, span) as first:
            weights = self._times_factors(some, first) if self.quantized else self.scores
            with f.loop(first, first + span, lanes * wide) as column:
                places = {
                    (g, v): column * 4 + (g * layout.value_dim + v * lanes) * 4 for g in some for v in range(wide)
                }
                acc = {at: f.variable(f32 * lanes, f.load(f32 * lanes, self.sums, places[at])) for at in places}
                with f.loop(first_used, used) as i:
                    self._ahead(some, (column + layout.key_dim) * PAGE + i * (lanes * wide))
                    for v in range(wide):
                        self._apart()
                        value = self._number(self.page + layout.values, i * layout.value_dim + column + v * lanes)
                        for g in some:
                            weight = f.broadcast(f32 * lanes, weights + i * 4, g * PAGE * 4)
                            acc[g, v].set(fma(value, weight, acc[g, v].get()))
                for of, variable in acc.items():
                    f.store(variable.get(), self.sums, places[of])

    def _times_factors(self, some: range, first: Value) -> Value:
        """Some heads' weights times the factors of the values' block that begins at column `first`."""
        f, lanes = self.f, self.lanes
        with f.loop(0, PAGE, lanes) as i:
            place = (first // BLOCK * PAGE + i) * 2
            factor = halves_to_float(f.load(u16 * lanes, self.page + self.layout.value_factors, place))
            for g in some:
                at = i * 4 + g * PAGE * 4
                f.store(f.load(f32 * lanes, self.scores, at) * factor, self._weights, at)
        return self._weights

    def _number(self, address: Value, index: Value) -> Value:
        """`lanes` elements of keys or values, as floats but for their factor."""
        if self.quantized:
            return self.f.load(i8 * self.lanes, address, index).to(f32)
        return halves_to_float(self.f.load(u16 * self.lanes, address, index * 2))

    def _ahead(self, some: range, element: Value) -> None:
        """Asks for what lies _AHEAD after the element that is as far in the page as the work on it is."""
        if some is self.heads[0]:
            self.f.prefetch(self.page, element * self.layout.element + _AHEAD, level=2)

    def _apart(self) -> None:
        """Keeps LLVM from loading a broadcast once for two products: as their operand it is free (docs/lab.md)."""
        if self.lanes == 16:
            self.f.keep_order()
