"""Grouped-query attention over a paged KV cache (kernels/pages.py).

The context is read in splits of SPLIT positions whose softmax sums are merged in order, however the work is shared
out (Dao, FlashAttention-2).
"""

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import exp, fma, halves_to_float, max_lanes, sum_lanes
from seventy.jit.types import f32, i8, i32, i64, pointer, u16
from seventy.kernels.abi import Kernel
from seventy.kernels.pages import BLOCK, PAGE, Layout

SPLIT = 512
_PAGES = SPLIT // PAGE
_LOWEST = -3e38

ARGUMENTS = ("rows", "positions", "tables", "queries", "query_stride", "cache", "n_pages", "scale", "output")


def build(module: Module, kv_heads: int, group: int, head_dim: int, kv: str) -> None:
    """output[row, head] = softmax(scale * query . keys) . values over positions 0 to that of the row."""
    layout = Layout(kv, head_dim)
    attend = _split(module, group, layout)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    queries = f.memory(4 * group * head_dim)
    sums = f.memory(4 * group * head_dim)
    maxima, totals = f.memory(4 * group), f.memory(4 * group)
    with k.claim(k.count("rows") * kv_heads) as item:
        row, head = item // kv_heads, item % kv_heads
        length = f.load(i32, k("positions", pointer), row * 4).to(i64) + 1
        table = f.load(pointer, k("tables", pointer), row * 8)
        offset = row * k("query_stride") + head * (4 * group * head_dim)
        scale = f.load(f32, k("scale", pointer)).splat(16)
        with f.loop(0, 4 * group * head_dim, 64) as i:
            f.store(f.load(f32 * 16, k("queries", pointer) + offset, i) * scale, queries, i)
            f.store(f.constant(f32 * 16, 0), sums, i)
        with f.loop(group) as g:
            f.store(f.constant(f32, _LOWEST), maxima, g * 4)
            f.store(f.constant(f32, 0), totals, g * 4)
        keys = layout.page(k("cache", pointer), k("n_pages"), head, f.constant(i64, 0))
        with f.loop(0, length, SPLIT) as first:
            here = (length - first).minimum(SPLIT)
            f.call(attend.name, None, queries, keys, table + first // PAGE * 4, here, sums, maxima, totals)
        output = k("output", pointer) + offset
        with f.loop(group) as g:
            inverse = (1.0 / f.load(f32, totals, g * 4)).splat(16)
            with f.loop(0, 4 * head_dim, 64) as i:
                place = g * (4 * head_dim) + i
                f.store(f.load(f32 * 16, sums, place) * inverse, output, place)


def _split(module: Module, group: int, layout: Layout) -> Function:
    """Adds one split to the sums, maxima and totals of `group` heads."""
    lanes, head_dim = module.isa.lanes, layout.head_dim
    quantized = layout.kind == "q8_0"
    # So many elements of a key or value share a factor.
    span = BLOCK if quantized else head_dim
    parameters = [pointer, pointer, pointer, i64, pointer, pointer, pointer]
    f = module.function("split", parameters, internal=True)
    queries, keys, table, length, sums, maxima, totals = f.arguments
    scores = f.memory(4 * group * SPLIT)
    pages = (length + (PAGE - 1)) // PAGE
    # As many heads and vectors at once as registers hold.
    many = 8 if lanes == 16 else 4
    vectors = 2 if lanes > 4 else 1
    heads = [range(first, min(first + many, group)) for first in range(0, group, many)]

    def page_of(p: Value) -> Value:
        return keys + f.load(i32, table, p * 4).to(i64) * layout.nbytes

    def number(address: Value, index: Value) -> Value:
        """`lanes` elements of keys or values, as floats but for their factor."""
        if quantized:
            return f.load(i8 * lanes, address, index).to(f32)
        return halves_to_float(f.load(u16 * lanes, address, index * 2))

    with f.loop(pages) as p:
        page = page_of(p)
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
                    f.store(dot.get(), scores, (p * PAGE + start + v * lanes) * 4 + g * SPLIT * 4)

    ramp = f.constant(i32 * lanes, 0)
    for lane in range(lanes):
        ramp = ramp.with_lane(lane, f.constant(i32, lane))
    with f.loop(group) as head:
        line = scores + head * (4 * SPLIT)
        largest = f.variable(f32 * lanes, _LOWEST)
        with f.loop(0, pages * PAGE, lanes) as i:
            valid = ramp + i.to(i32).splat(lanes) < length.to(i32).splat(lanes)
            score = valid.select(f.load(f32 * lanes, line, i * 4), _LOWEST)
            f.store(score, line, i * 4)
            largest.set(score.maximum(largest.get()))
        before = f.load(f32, maxima, head * 4)
        maximum = max_lanes(largest.get()).maximum(before)
        f.store(maximum, maxima, head * 4)
        total = f.variable(f32 * lanes, 0)
        with f.loop(0, pages * PAGE, lanes) as i:
            weight = exp(f.load(f32 * lanes, line, i * 4) - maximum.splat(lanes))
            f.store(weight, line, i * 4)
            total.set(total.get() + weight)
        shrink = exp(before - maximum)
        f.store(f.load(f32, totals, head * 4) * shrink + sum_lanes(total.get()), totals, head * 4)
        with f.loop(0, 4 * head_dim, 64) as i:
            place = head * (4 * head_dim) + i
            f.store(f.load(f32 * 16, sums, place) * shrink.splat(16), sums, place)

    wide = next(n for n in (vectors, 1) if span % (n * lanes) == 0)
    scaled = f.memory(4 * group * SPLIT) if quantized else scores
    for some in heads:
        with f.loop(0, head_dim, span) as first:
            if quantized:
                with f.loop(pages) as p:
                    page = page_of(p) + layout.value_factors
                    with f.loop(0, PAGE, lanes) as i:
                        factor = halves_to_float(f.load(u16 * lanes, page, (first // BLOCK * PAGE + i) * 2))
                        for g in some:
                            place = (p * PAGE + i) * 4 + g * SPLIT * 4
                            f.store(f.load(f32 * lanes, scores, place) * factor, scaled, place)
            with f.loop(first, first + span, lanes * wide) as column:
                places = {(g, v): column * 4 + (g * head_dim + v * lanes) * 4 for g in some for v in range(wide)}
                acc = {at: f.variable(f32 * lanes, f.load(f32 * lanes, sums, places[at])) for at in places}
                with f.loop(pages) as p:
                    page = page_of(p) + layout.values
                    with f.loop((length - p * PAGE).minimum(PAGE)) as i:
                        for v in range(wide):
                            value = number(page, i * head_dim + column + v * lanes)
                            for g in some:
                                weight = f.broadcast(f32 * lanes, scaled + (p * PAGE + i) * 4, g * SPLIT * 4)
                                acc[g, v].set(fma(value, weight, acc[g, v].get()))
                for at, variable in acc.items():
                    f.store(variable.get(), sums, places[at])
    return f
