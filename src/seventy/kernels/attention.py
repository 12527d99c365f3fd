"""Grouped-query attention over a paged KV cache (kernels/pages.py).

Pages are read one after the other, keys and then values, and merged into softmax sums at once (Dao,
FlashAttention-2): so the CPU's own prefetching sees one stream. A row's past is cut into at most PARTS parts, by its
length alone, which are merged in order; so it does not matter whether one thread computes all parts or each has its
own (Flash-Decoding).
"""

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import exp, fma, halves_to_float, max_lanes, sum_lanes
from seventy.jit.types import f32, i8, i32, i64, pointer, u16
from seventy.kernels.abi import Kernel
from seventy.kernels.pages import BLOCK, PAGE, Layout

PARTS = 16
# A part has at least so many positions, a multiple of PAGE.
SHORTEST_PART = 512
# With more rows times KV heads than this every thread has work enough without sharing rows.
SHARED = 64
_LOWEST = -3e38

ARGUMENTS = (
    "rows", "positions", "tables", "queries", "query_stride", "cache", "n_pages", "scale", "output", "scratch",
)  # fmt: skip


def _part_bytes(group: int, head_dim: int) -> int:
    """A part's result: each head's sum of weighted values, each head's sum of weights in 16 lanes, the maxima."""
    return 4 * group * (head_dim + 16) + -(-4 * group // 64) * 64


def scratch_bytes(kv_heads: int, group: int, head_dim: int) -> int:
    """What `scratch` needs, zeros at first: for each row and KV head that threads share, parts done and the parts."""
    return max(SHARED, kv_heads) * (64 + PARTS * _part_bytes(group, head_dim))


def build(module: Module, kv_heads: int, group: int, head_dim: int, kv: str) -> None:
    """output[row, head] = softmax(scale * query . keys) . values over positions 0 to that of the row."""
    layout, heads_bytes = Layout(kv, head_dim), 4 * group * head_dim
    add_page, merge = _page(module, group, layout), _merge(module, group, head_dim)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    rows = k.count("rows")
    queries, whole, alone = f.memory(heads_bytes), *(f.memory(_part_bytes(group, head_dim)) for _ in range(2))

    def length_of(row: Value) -> Value:
        return f.load(i32, k("positions", pointer), row * 4).to(i64) + 1

    def part_length(length: Value) -> Value:
        return (length + (SHORTEST_PART * PARTS - 1)) // (SHORTEST_PART * PARTS) * SHORTEST_PART

    def parts_of(length: Value) -> Value:
        return (length + part_length(length) - 1) // part_length(length)

    def compute(row: Value, head: Value, part: Value, result: Value) -> None:
        """One part of a row's past."""
        length, table = length_of(row), f.load(pointer, k("tables", pointer), row * 8)
        offset = row * k("query_stride") + head * heads_bytes
        scale = f.load(f32, k("scale", pointer)).splat(16)
        with f.loop(0, heads_bytes, 64) as i:
            f.store(f.load(f32 * 16, k("queries", pointer) + offset, i) * scale, queries, i)
        _clear(f, result, group, head_dim)
        keys = layout.page(k("cache", pointer), k("n_pages"), head, f.constant(i64, 0))
        first = part * part_length(length)
        with f.loop(first, (first + part_length(length)).minimum(length), PAGE) as position:
            page = keys + f.load(i32, table, position // PAGE * 4).to(i64) * layout.nbytes
            f.call(add_page.name, None, queries, page, (length - position).minimum(PAGE), result)

    def finish(row: Value, head: Value) -> None:
        output = k("output", pointer) + row * k("query_stride") + head * heads_bytes
        with f.loop(group) as g:
            inverse = (1.0 / sum_lanes(f.load(f32 * 16, whole, heads_bytes + g * 64))).splat(16)
            with f.loop(0, 4 * head_dim, 64) as i:
                place = g * (4 * head_dim) + i
                f.store(f.load(f32 * 16, whole, place) * inverse, output, place)

    most = f.variable(i64, 1)
    shared = rows * kv_heads <= max(SHARED, kv_heads)
    with f.when(shared), f.loop(rows) as row:
        most.set(most.get().maximum(parts_of(length_of(row))))
    with k.claim(rows * kv_heads * most.get()) as item:
        pair, part = item // most.get(), item % most.get()
        row, head = pair // kv_heads, pair % kv_heads
        parts = parts_of(length_of(row))
        with f.when(shared & (part < parts)):
            # Whoever is last of a row and head merges.
            done = k("scratch", pointer) + pair * (64 + PARTS * _part_bytes(group, head_dim))
            compute(row, head, part, done + 64 + part * _part_bytes(group, head_dim))
            with f.when((f.atomic_add(done, 1) + 1).eq(parts)):
                f.atomic_store(done, 0)
                _clear(f, whole, group, head_dim)
                with f.loop(parts) as p:
                    f.call(merge.name, None, whole, done + 64 + p * _part_bytes(group, head_dim))
                finish(row, head)
        with f.when(shared.eq(False)):
            _clear(f, whole, group, head_dim)
            with f.loop(parts) as p:
                compute(row, head, p, alone)
                f.call(merge.name, None, whole, alone)
            finish(row, head)


def _clear(f: Function, result: Value, group: int, head_dim: int) -> None:
    with f.loop(0, 4 * group * (head_dim + 16), 64) as i:
        f.store(f.constant(f32 * 16, 0), result, i)
    with f.loop(group) as g:
        f.store(f.constant(f32, _LOWEST), result, 4 * group * (head_dim + 16) + g * 4)


def _scale(f: Function, result: Value, head: Value, factor: Value, group: int, head_dim: int) -> None:
    """Multiplies a head's sums."""
    with f.loop(0, 4 * head_dim, 64) as i:
        place = head * (4 * head_dim) + i
        f.store(f.load(f32 * 16, result, place) * factor.splat(16), result, place)
    place = head * 64 + 4 * group * head_dim
    f.store(f.load(f32 * 16, result, place) * factor.splat(16), result, place)


def _merge(module: Module, group: int, head_dim: int) -> Function:
    """Adds a part to what is merged already; changes the part too."""
    f = module.function("merge", [pointer, pointer], internal=True)
    whole, part = f.arguments
    with f.loop(group) as g:
        at = g * 4 + 4 * group * (head_dim + 16)
        before = [f.load(f32, result, at) for result in (whole, part)]
        maximum = before[0].maximum(before[1])
        f.store(maximum, whole, at)
        for result, old in zip((whole, part), before, strict=True):
            _scale(f, result, g, exp(old - maximum), group, head_dim)
    with f.loop(0, 4 * group * (head_dim + 16), 64) as i:
        f.store(f.load(f32 * 16, whole, i) + f.load(f32 * 16, part, i), whole, i)
    return f


def _page(module: Module, group: int, layout: Layout) -> Function:
    """Adds the first `count` positions of a page to the result of `group` heads."""
    lanes, head_dim = module.isa.lanes, layout.head_dim
    quantized = layout.kind == "q8_0"
    # So many elements of a key or value share a factor.
    span = BLOCK if quantized else head_dim
    f = module.function("page", [pointer, pointer, i64, pointer], internal=True)
    queries, page, count, sums = f.arguments
    totals = sums + 4 * group * head_dim
    maxima = totals + 64 * group
    scores = f.memory(4 * group * PAGE)
    # As many heads and vectors at once as registers hold.
    many = 8 if lanes == 16 else 4
    vectors = 2 if lanes > 4 else 1
    heads = [range(first, min(first + many, group)) for first in range(0, group, many)]

    def number(address: Value, index: Value) -> Value:
        """`lanes` elements of keys or values, as floats but for their factor."""
        if quantized:
            return f.load(i8 * lanes, address, index).to(f32)
        return halves_to_float(f.load(u16 * lanes, address, index * 2))

    for some in heads:
        with f.loop(0, PAGE, lanes * vectors) as start:
            dots = {(g, v): f.variable(f32 * lanes, 0) for g in some for v in range(vectors)}
            with f.loop(0, head_dim, span) as first:
                parts = {place: f.variable(f32 * lanes, 0) for place in dots} if quantized else dots
                with f.loop(first, first + span) as i:
                    for v in range(vectors):
                        key = number(page, i * PAGE + start + v * lanes)
                        for g in some:
                            query = f.broadcast(f32 * lanes, queries + i * 4, g * head_dim * 4)
                            parts[g, v].set(fma(key, query, parts[g, v].get()))
                if quantized:
                    for v in range(vectors):
                        place = (first // BLOCK * PAGE + start + v * lanes) * 2
                        factor = halves_to_float(f.load(u16 * lanes, page + layout.key_factors, place))
                        for g in some:
                            dots[g, v].set(fma(parts[g, v].get(), factor, dots[g, v].get()))
            for (g, v), dot in dots.items():
                f.store(dot.get(), scores, (start + v * lanes) * 4 + g * PAGE * 4)

    with f.loop(group) as head:
        line = scores + head * (4 * PAGE)
        ramps = [f.vector(i32 * lanes, range(first, first + lanes)) for first in range(0, PAGE, lanes)]
        valid = [ramp < count.to(i32).splat(lanes) for ramp in ramps]
        here = [ok.select(f.load(f32 * lanes, line, 4 * lanes * part), _LOWEST) for part, ok in enumerate(valid)]
        largest = here[0]
        for score in here[1:]:
            largest = score.maximum(largest)
        before, maximum = f.load(f32, maxima, head * 4), max_lanes(largest)
        with f.when(maximum > before):
            f.store(maximum, maxima, head * 4)
            _scale(f, sums, head, exp(before - maximum), group, head_dim)
        shift = f.broadcast(f32 * lanes, maxima, head * 4)
        total = f.load(f32 * lanes, totals, head * 64)
        for part, score in enumerate(here):
            weight = exp(score - shift)
            f.store(weight, line, 4 * lanes * part)
            total = total + weight
        f.store(total, totals, head * 64)

    wide = next(n for n in (vectors, 1) if span % (n * lanes) == 0)
    weights = f.memory(4 * group * PAGE) if quantized else scores
    for some in heads:
        with f.loop(0, head_dim, span) as first:
            if quantized:
                with f.loop(0, PAGE, lanes) as i:
                    place = (first // BLOCK * PAGE + i) * 2
                    factor = halves_to_float(f.load(u16 * lanes, page + layout.value_factors, place))
                    for g in some:
                        at = i * 4 + g * PAGE * 4
                        f.store(f.load(f32 * lanes, scores, at) * factor, weights, at)
            with f.loop(first, first + span, lanes * wide) as column:
                places = {(g, v): column * 4 + (g * head_dim + v * lanes) * 4 for g in some for v in range(wide)}
                acc = {at: f.variable(f32 * lanes, f.load(f32 * lanes, sums, places[at])) for at in places}
                with f.loop(count) as i:
                    for v in range(wide):
                        value = number(page + layout.values, i * head_dim + column + v * lanes)
                        for g in some:
                            weight = f.broadcast(f32 * lanes, weights + i * 4, g * PAGE * 4)
                            acc[g, v].set(fma(value, weight, acc[g, v].get()))
                for of, variable in acc.items():
                    f.store(variable.get(), sums, places[of])
    return f

