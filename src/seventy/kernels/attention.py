"""Grouped-query attention over a paged f16 KV cache.

A page holds PAGE positions of one KV head of one layer: keys as [head_dim, PAGE], so that a vector is as many
positions and a score needs no sum across lanes; then values as [PAGE, head_dim]. The context is read in splits of
SPLIT positions whose softmax sums are merged in order, however the work is shared out (Dao, FlashAttention-2).
"""

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import exp, fma, halves_to_float, max_lanes, sum_lanes
from seventy.jit.types import f32, i32, i64, pointer, u16
from seventy.kernels.abi import Kernel

PAGE = 32
SPLIT = 512
_PAGES = SPLIT // PAGE
_LOWEST = -3e38

ARGUMENTS = ("rows", "positions", "tables", "queries", "query_stride", "cache", "n_pages", "scale", "output")


def page_bytes(head_dim: int) -> int:
    """Bytes of the keys and values of a page of one KV head."""
    return 2 * 2 * PAGE * head_dim


def page_address(cache: Value, n_pages: Value, head: Value, page: Value, head_dim: int) -> Value:
    """A layer's cache holds its KV heads one after the other, each with all its pages."""
    return cache + (head * n_pages + page) * page_bytes(head_dim)


def build(module: Module, kv_heads: int, group: int, head_dim: int) -> None:
    """output[row, head] = softmax(scale * query . keys) . values over positions 0 to that of the row."""
    attend = _split(module, group, head_dim)
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
        keys = page_address(k("cache", pointer), k("n_pages"), head, f.constant(i64, 0), head_dim)
        with f.loop(0, length, SPLIT) as first:
            here = (length - first).minimum(SPLIT)
            f.call(attend.name, None, queries, keys, table + first // PAGE * 4, here, sums, maxima, totals)
        output = k("output", pointer) + offset
        with f.loop(group) as g:
            inverse = (1.0 / f.load(f32, totals, g * 4)).splat(16)
            with f.loop(0, 4 * head_dim, 64) as i:
                place = g * (4 * head_dim) + i
                f.store(f.load(f32 * 16, sums, place) * inverse, output, place)


def _split(module: Module, group: int, head_dim: int) -> Function:
    """Adds one split to the sums, maxima and totals of `group` heads."""
    lanes = module.isa.lanes
    parameters = [pointer, pointer, pointer, i64, pointer, pointer, pointer]
    f = module.function("split", parameters, internal=True)
    queries, keys, table, length, sums, maxima, totals = f.arguments
    scores = f.memory(4 * group * SPLIT)
    pages = (length + (PAGE - 1)) // PAGE
    bytes_of_page = page_bytes(head_dim)
    # As many heads and vectors at once as registers hold.
    many = 8 if lanes == 16 else 4
    vectors = 2 if lanes > 4 else 1
    heads = [range(first, min(first + many, group)) for first in range(0, group, many)]

    with f.loop(pages) as p:
        page = keys + f.load(i32, table, p * 4).to(i64) * bytes_of_page
        for some in heads:
            with f.loop(0, PAGE, lanes * vectors) as start:
                dots = {(g, v): f.variable(f32 * lanes, 0) for g in some for v in range(vectors)}
                with f.loop(head_dim) as i:
                    for v in range(vectors):
                        half = f.load(u16 * lanes, page, (i * PAGE + start + v * lanes) * 2)
                        key = halves_to_float(half)
                        for g in some:
                            query = f.broadcast(f32 * lanes, queries + i * 4, g * head_dim * 4)
                            dots[g, v].set(fma(key, query, dots[g, v].get()))
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

    wide = next(n for n in (vectors, 1) if head_dim % (n * lanes) == 0)
    for some in heads:
        with f.loop(0, head_dim, lanes * wide) as column:
            acc = {
                (g, v): f.variable(f32 * lanes, f.load(f32 * lanes, sums + column * 4, (g * head_dim + v * lanes) * 4))
                for g in some for v in range(wide)
            }  # fmt: skip
            with f.loop(pages) as p:
                page = keys + f.load(i32, table, p * 4).to(i64) * bytes_of_page + 2 * PAGE * head_dim
                with f.loop((length - p * PAGE).minimum(PAGE)) as i:
                    for v in range(wide):
                        value = halves_to_float(f.load(u16 * lanes, page, (i * head_dim + column + v * lanes) * 2))
                        for g in some:
                            weight = f.broadcast(f32 * lanes, scores + (p * PAGE + i) * 4, g * SPLIT * 4)
                            acc[g, v].set(fma(value, weight, acc[g, v].get()))
            for (g, v), variable in acc.items():
                f.store(variable.get(), sums + column * 4, (g * head_dim + v * lanes) * 4)
    return f
