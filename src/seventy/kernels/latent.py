"""Latent attention (MLA, DeepSeek-AI 2024) in its absorbed form: all heads share one key, whose beginning is the value.

A page is unpacked to floats once for a group of heads. Scores have heads in the lanes: the queries are loaded, the
elements of the keys are broadcast; so the softmax needs no sums across lanes. Values have columns in the lanes. Both
go by stretches that the L1 holds. Threads share a row's past as kernels/parts.py says.
"""

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import any_lane, exp, exp_of_negative, fma, transposed
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.pages import PAGE, LatentLayout
from seventy.kernels.parts import PARTS, Rows, share

# A part has at least so many positions, a multiple of PAGE: to merge one costs what half a page costs.
SHORTEST_PART = 64
# With more rows times groups than this every thread has work enough without sharing rows.
SHARED = 16
# Heads go over a page in groups of so many at most, a prompt's rows together while their heads are not more in all.
_GROUP, _TILE_ROWS, _TILE_HEADS = 32, 8, 64
# Elements of the keys that the scores of all heads go over at a time.
_STRETCH = 64
_LOWEST = -3e38

ARGUMENTS = (
    "rows", "positions", "segments", "tables", "table_stride", "queries", "query_stride", "cache", "scales",
    "scale_span", "output", "output_stride", "scratch",
)  # fmt: skip


def groups(heads: int) -> int:
    """Return in how many equal groups the heads go over a page."""
    return next(n for n in range(-(-heads // _GROUP), heads + 1) if heads % n == 0)


def scratch_bytes(heads: int, value_dim: int) -> int:
    """Return the bytes of `scratch`, which must be zero at first: for each row and group that threads share, counters
    and partial results.

    The size is right for vectors of any width.
    """
    n = groups(heads)
    return max(SHARED, n) * (64 + PARTS * _Sums(heads // n, 16, value_dim).nbytes)


def build(module: Module, heads: int, dim: int, value_dim: int, kv: str) -> None:
    """Build the kernel of latent attention: output[row, head] = softmax(scale * query . keys) . values.

    A row attends to positions 0 to its own. Keys have `dim` elements, of which the first `value_dim` are the value. The
    scale of a row at position p is the f32 scales[p // scale_span]. Row r belongs to sequence segments[r], whose pages
    are listed in that row of `tables`, i32, rows `table_stride` bytes apart.
    """
    layout = LatentLayout(kv, dim)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    n_groups = groups(heads)
    group = heads // n_groups
    keys = f.memory(4 * PAGE * dim)
    one = _Rows(k, 1, group, layout, value_dim, keys)
    together = min(_TILE_ROWS, _TILE_HEADS // group)
    tile = _Rows(k, together, group, layout, value_dim, keys) if together > 1 else None

    def split(item: Value, most: Value) -> tuple[Value, Value, Value]:
        # Groups are next to each other: the first one's reading is the only one from memory.
        which, item = item % n_groups, item // n_groups
        return item // most, which, item % most

    share(k, n_groups, SHARED, one.sums.nbytes, one, tile, split)


class _Sums:
    """How a part's result lies: sums of weighted values, `width` columns of all heads after the other, then each
    head's sum of weights and its largest score, padded to whole vectors."""

    def __init__(self, heads: int, lanes: int, value_dim: int) -> None:
        self.heads, self.lanes, self.value_dim = heads, lanes, value_dim
        self.vectors = -(-heads // lanes)
        self.width = 2 * lanes if lanes > 4 and value_dim % (2 * lanes) == 0 else lanes
        self.totals = 4 * heads * value_dim
        self.maxima = self.totals + 4 * self.vectors * lanes
        self.nbytes = self.maxima + 4 * self.vectors * lanes

    def clear(self, f: Function, result: Value) -> None:
        zero = f.constant(f32 * self.lanes, 0)
        with f.loop(0, self.maxima, 4 * self.lanes) as i:
            f.store(zero, result, i)
        for v in range(self.vectors):
            f.store(f.constant(zero.type, _LOWEST), result, self.maxima + 4 * self.lanes * v)


class _Rows(Rows):
    """Rows with the `group` heads of a group."""

    def __init__(self, k: Kernel, n: int, group: int, layout: LatentLayout, value_dim: int, keys: Value) -> None:
        super().__init__(k, n, SHORTEST_PART)
        self.group, self.layout, self.keys = group, layout, keys
        self.sums = _Sums(n * group, k.f.isa.lanes, value_dim)
        self._add_page = _page(k.f.module, n, group, layout, self.sums)
        self._merge = _merge(k.f.module, self.sums)
        self._queries = k.f.memory(4 * self.sums.vectors * self.sums.lanes * layout.dim)
        self._whole, self._part = (k.f.memory(self.sums.nbytes) for _ in range(2))

    def compute(self, row: Value, which: Value, part: Value, result: Value) -> None:
        self._take_queries(row, which)
        self._add_part(row, part, result)

    def _take_queries(self, row: Value, which: Value) -> None:
        """Scaled and with heads in the lanes: [vectors, dim, lanes]."""
        k, f, dim, lanes = self.k, self.k.f, self.layout.dim, self.sums.lanes
        vector, scales = f32 * lanes, f.memory(4 * lanes)
        with f.loop(self.sums.vectors) as v:
            lines = []
            for lane in range(lanes):
                head = (v * lanes + lane).minimum(self.sums.heads - 1)
                its_row = row + head // self.group
                scale = f.load(f32, k("scales", pointer), (self.length(its_row) - 1) // k("scale_span") * 4)
                f.store(scale, scales, 4 * lane)
                line = k("queries", pointer) + its_row * k("query_stride")
                lines.append(line + (which * self.group + head % self.group) * (4 * dim))
            with f.loop(0, dim, lanes) as i:
                columns = transposed([f.load(vector, line, i * 4) for line in lines])
                target = self._queries + (v * dim + i) * (4 * lanes)
                for j, column in enumerate(columns):
                    f.store(column * f.load(vector, scales), target, j * 4 * lanes)

    def _add_part(self, row: Value, part: Value, result: Value) -> None:
        k, f = self.k, self.k.f
        length, table = self.length(row), k("tables", pointer) + self.segment(row) * k("table_stride")
        self.sums.clear(f, result)
        first = part * self.part_length(row)
        end = (first + self.part_length(row)).minimum(length + (self.n - 1))

        def page(position: Value) -> Value:
            return self.layout.page(k("cache", pointer), f.load(i32, table, position // PAGE * 4).to(i64))

        with f.loop(first, end, PAGE) as position:
            following = page((position + PAGE).minimum(end - 1))
            f.call(
                self._add_page.name, None, self._queries, page(position), length - position, result, self.keys,
                following,
            )  # fmt: skip

    def clear(self) -> None:
        self.sums.clear(self.k.f, self._whole)

    def merge(self, part: Value) -> None:
        self.k.f.call(self._merge.name, None, self._whole, part)

    def finish(self, row: Value, which: Value) -> None:
        k, f, s = self.k, self.k.f, self.sums
        vector = f32 * s.lanes
        for r in range(self.n):
            output = k("output", pointer) + (row + r) * k("output_stride")
            with f.loop(self.group) as g:
                of = g + r * self.group
                target = output + (which * self.group + g) * (4 * s.value_dim)
                inverse = (1.0 / f.load(f32, self._whole, of * 4 + s.totals)).splat(s.lanes)
                with f.loop(0, s.value_dim, s.width) as column:
                    for v in range(0, s.width, s.lanes):
                        place = column * (4 * s.heads) + of * (4 * s.width) + 4 * v
                        f.store(f.load(vector, self._whole, place) * inverse, target, (column + v) * 4)

    def whole(self, row: Value, which: Value) -> None:
        self._take_queries(row, which)
        self.clear()
        with self.k.f.loop(self.parts(row)) as p:
            self._add_part(row, p, self._part)
            self.merge(self._part)
        self.finish(row, which)


def _merge(module: Module, s: _Sums) -> Function:
    """Adds a part to what is merged already."""
    f = module.function(f"merge{s.heads}", [pointer, pointer], internal=True)
    results = f.arguments
    vector = f32 * s.lanes
    factors = [f.memory(4 * s.lanes * s.vectors) for _ in results]
    with f.loop(0, 4 * s.lanes * s.vectors, 4 * s.lanes) as i:
        maxima = [f.load(vector, result, i + s.maxima) for result in results]
        maximum = maxima[0].maximum(maxima[1])
        total = f.constant(vector, 0)
        for result, memory, old in zip(results, factors, maxima, strict=True):
            factor = exp(old - maximum)
            f.store(factor, memory, i)
            total = fma(f.load(vector, result, i + s.totals), factor, total)
        f.store(maximum, results[0], i + s.maxima)
        f.store(total, results[0], i + s.totals)
    with f.loop(0, s.value_dim, s.width) as column, f.loop(s.heads) as head:
        place = column * (4 * s.heads) + head * (4 * s.width)
        whole, part = (f.broadcast(vector, memory, head * 4) for memory in factors)
        for v in range(0, 4 * s.width, 4 * s.lanes):
            sums = [f.load(vector, result, place + v) for result in results]
            f.store(fma(sums[1], part, sums[0] * whole), results[0], place + v)
    return f


def _page(module: Module, rows: int, group: int, layout: LatentLayout, s: _Sums) -> Function:
    """Adds the first `count` positions of a page to the result of a row's heads, one more to that of the next row's."""
    lanes, dim, value_dim = module.isa.lanes, layout.dim, s.value_dim
    f = module.function(f"page{rows}", [pointer, pointer, i64, pointer, pointer, pointer], internal=True)
    queries, page, count, result, keys, following = f.arguments
    vector, padded = f32 * lanes, lanes * s.vectors
    scores = f.memory(4 * PAGE * padded)
    # As many positions, or heads, and vectors at once as registers hold.
    many, pair = (8 if lanes == 16 else 4), (2 if lanes > 4 else 1)

    def apart() -> None:
        """Keeps LLVM from loading a broadcast once for two products: as their operand it is free (docs/lab.md)."""
        if lanes == 16:
            f.keep_order()

    layout.unpack(f, page, keys)
    with f.loop(0, PAGE * padded, lanes) as i:
        f.store(f.constant(vector, 0), scores, i * 4)

    def add_scores(at: Value, first: Value, wide: int) -> None:
        """Of `wide` vectors of heads, over a stretch of the keys from `at` on."""
        with f.loop(0, PAGE, many) as position:
            each = [(p, v) for p in range(many) for v in range(wide)]
            places = {(p, v): ((position + p) * padded + (first + v) * lanes) * 4 for p, v in each}
            dots = {of: f.variable(vector, f.load(vector, scores, place)) for of, place in places.items()}
            line = keys + position * (4 * dim) + at * 4
            query = queries + first * (4 * lanes * dim) + at * (4 * lanes)
            with f.loop(min(_STRETCH, dim & -dim)) as i:
                for v in range(wide):
                    apart()
                    number = f.load(vector, query + i * (4 * lanes), v * 4 * lanes * dim)
                    for p in range(many):
                        key = f.broadcast(vector, line + i * 4, p * 4 * dim)
                        dots[p, v].set(fma(key, number, dots[p, v].get()))
            for of, dot in dots.items():
                f.store(dot.get(), scores, places[of])

    with f.loop(0, dim, min(_STRETCH, dim & -dim)) as at:
        with f.loop(0, s.vectors // pair * pair, pair) as first:
            add_scores(at, first, pair)
        if s.vectors % pair:
            add_scores(at, f.constant(i64, s.vectors - 1), 1)

    factors = f.memory(4 * padded)
    for v in range(s.vectors):
        line = scores + 4 * lanes * v
        of_lane = [min((v * lanes + lane) // group, rows - 1) for lane in range(lanes)]
        limit = f.vector(i32 * lanes, of_lane) + count.to(i32).splat(lanes)
        before = f.load(vector, result, s.maxima + 4 * lanes * v)
        largest = f.variable(vector, before)
        with f.loop(PAGE) as position:
            score = f.load(vector, line, position * (4 * padded))
            score = (position.to(i32).splat(lanes) < limit).select(score, _LOWEST)
            f.store(score, line, position * (4 * padded))
            largest.set(score.maximum(largest.get()))
        maximum = largest.get()
        total = f.variable(vector, f.load(vector, result, s.totals + 4 * lanes * v))
        with f.when(any_lane(maximum > before)):
            factor = exp(before - maximum)
            f.store(maximum, result, s.maxima + 4 * lanes * v)
            f.store(factor, factors, 4 * lanes * v)
            total.set(total.get() * factor)
            end = min(s.heads, (v + 1) * lanes)
            with f.loop(0, value_dim, s.width) as column, f.loop(v * lanes, end) as head:
                smaller = f.broadcast(vector, factors, head * 4)
                for v_bytes in range(0, 4 * s.width, 4 * lanes):
                    place = column * (4 * s.heads) + head * (4 * s.width) + v_bytes
                    f.store(f.load(vector, result, place) * smaller, result, place)
        with f.loop(PAGE) as position:
            weight = exp_of_negative(f.load(vector, line, position * (4 * padded)) - maximum)
            f.store(weight, line, position * (4 * padded))
            total.set(total.get() + weight)
        f.store(total.get(), result, s.totals + 4 * lanes * v)

    used = (count + (rows - 1)).minimum(PAGE)

    def add_values(column: Value, first: Value, some: int) -> None:
        """Of `some` heads, `width` columns."""
        start = column * (4 * s.heads) + first * (4 * s.width)
        at = {(g, v): start + (g * s.width + v * lanes) * 4 for g in range(some) for v in range(s.width // lanes)}
        acc = {of: f.variable(vector, f.load(vector, result, place)) for of, place in at.items()}
        with f.loop(used) as position:
            for v in range(s.width // lanes):
                apart()
                value = f.load(vector, keys + (position * dim + column) * 4, 4 * v * lanes)
                for g in range(some):
                    weight = f.broadcast(vector, scores + (position * padded + first) * 4, 4 * g)
                    acc[g, v].set(fma(value, weight, acc[g, v].get()))
        for of, variable in acc.items():
            f.store(variable.get(), result, at[of])

    # The next page is asked for by pieces meanwhile.
    piece = -(-layout.nbytes // (value_dim // s.width) // 64) * 64
    with f.loop(0, value_dim, s.width) as column:
        with f.loop(0, piece, 64) as i:
            f.prefetch(following, column // s.width * piece + i, level=2)
        with f.loop(0, s.heads // many * many, many) as head:
            add_values(column, head, many)
        if s.heads % many:
            add_values(column, f.constant(i64, s.heads // many * many), s.heads % many)
    return f
