import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import attention, rope
from seventy.kernels.attention import PARTS, SHARED, SHORTEST_PART
from seventy.kernels.pages import KINDS, PAGE, Layout
from seventy.models.blocks.rotary import Rotary
from tests.support import twins
from tests.support.call import call, count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("kv_heads", "group", "key_dim", "value_dim"),
    [(1, 1, 64, 64), (2, 3, 64, 64), (2, 8, 128, 128), (1, 9, 96, 96), (2, 3, 192, 128), (1, 2, 64, 96)],
)
def test_attention_equals_its_twin(
    kv_heads: int, group: int, key_dim: int, value_dim: int, kind: str, isa: Isa
) -> None:
    rng = np.random.default_rng(key_dim)
    part = SHORTEST_PART
    positions = np.array([0, 1, PAGE - 1, PAGE, 5 * PAGE + 7, part - 1, part, 2 * part + 77], np.int32)
    n, n_pages = len(positions), 3 * part // PAGE
    layout = Layout(kind, key_dim, value_dim)
    cache = np.zeros((kv_heads, n_pages, layout.nbytes), np.uint8)
    # What lies past a row's position must not matter, even where it is no number.
    table = rng.permutation(n_pages).astype(np.int32)
    last = table[(2 * part + 77) // PAGE]
    for head in range(kv_heads):
        for page in range(n_pages):
            keys, values = (rng.standard_normal((PAGE, dim)) for dim in (key_dim, value_dim))
            if page == last:
                keys[78 % PAGE :] = values[78 % PAGE :] = np.nan
            with np.errstate(invalid="ignore"):
                cache[head, page] = twins.pack_page(keys, values, kind)
    queries = rng.standard_normal((n, kv_heads * group, key_dim)).astype(np.float32) * 3
    out = np.zeros((n, kv_heads * group, value_dim), np.float32)
    scale = np.array([key_dim**-0.5], np.float32)
    arguments = {
        "positions": positions, "segments": np.zeros(n, np.int32), "tables": table, "table_stride": table.nbytes,
        "queries": queries, "query_stride": queries.strides[0], "output_stride": out.strides[0], "cache": cache,
        "n_pages": n_pages, "scales": scale, "scale_span": 1 << 20,
        "scratch": np.zeros(attention.scratch_bytes(kv_heads, group, value_dim), np.uint8),
    }  # fmt: skip
    kernel = Kernel("seventy.kernels.attention:build", (kv_heads, group, key_dim, value_dim, kind))
    call(isa, kernel, attention.ARGUMENTS, threads=3, rows=count(n), output=out, **arguments)
    for row, position in enumerate(positions):
        want = twins.attention(queries[row], cache, table, position, key_dim**-0.5, layout)
        # Scores of about 10 are right to 1e-6 in f32, so are the weights, and so is a sum of values of about 1.
        np.testing.assert_allclose(out[row], want, rtol=2e-5, atol=1e-5)

    # A row alone, in other pages, is the same to the bit.
    other = (table[::-1].copy() + 0).astype(np.int32)
    moved = np.empty_like(cache)
    moved[:, other] = cache[:, table]
    alone = np.zeros_like(out[:1])
    arguments |= {"positions": positions[-1:], "queries": queries[-1:].copy(), "cache": moved, "tables": other}
    call(isa, kernel, attention.ARGUMENTS, rows=count(1), output=alone, **arguments)
    assert np.array_equal(alone[0], out[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_share_a_row_change_nothing(kind: str, isa: Isa) -> None:
    rng = np.random.default_rng(1)
    kv_heads, group, head_dim = 2, 2, 64
    # Longer than PARTS of the shortest parts; and enough rows that each stays with one thread.
    positions = np.full(SHARED // kv_heads + 1, PARTS * SHORTEST_PART + 100, np.int32)
    positions[1:] = rng.integers(0, 3 * SHORTEST_PART, len(positions) - 1)
    n, n_pages = len(positions), PARTS * SHORTEST_PART // PAGE + 4
    cache = np.zeros((kv_heads, n_pages, Layout(kind, head_dim, head_dim).nbytes), np.uint8)
    for head in range(kv_heads):
        for page in range(n_pages):
            cache[head, page] = twins.pack_page(*rng.standard_normal((2, PAGE, head_dim)), kind)
    queries = rng.standard_normal((n, kv_heads * group, head_dim)).astype(np.float32)
    table, scale = np.arange(n_pages, dtype=np.int32), np.array([0.2], np.float32)
    scratch = np.zeros(attention.scratch_bytes(kv_heads, group, head_dim), np.uint8)

    def run(rows: int, threads: int) -> np.ndarray:
        out = np.zeros_like(queries[:rows])
        call(
            isa, Kernel("seventy.kernels.attention:build", (kv_heads, group, head_dim, head_dim, kind)),
            attention.ARGUMENTS, threads=threads, rows=count(rows), positions=positions,
            segments=np.zeros(n, np.int32), tables=table, table_stride=table.nbytes, queries=queries,
            query_stride=queries.strides[0], cache=cache, n_pages=n_pages,
            scales=scale, scale_span=1 << 20, output=out, output_stride=out.strides[0], scratch=scratch,
        )  # fmt: skip
        return out

    together = run(n, 3)
    want = twins.attention(queries[0], cache, table, int(positions[0]), 0.2, Layout(kind, head_dim, head_dim))
    np.testing.assert_allclose(together[0], want, rtol=2e-5, atol=1e-5)
    for rows, threads in ((1, 1), (1, 4), (5, 4), (n - 1, 2)):
        assert np.array_equal(run(rows, threads), together[:rows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", [1, 3, 8, 17])
def test_rows_of_a_prompt_are_as_each_alone(group: int, kind: str, isa: Isa) -> None:
    rng = np.random.default_rng(group)
    kv_heads, head_dim = 2, 64
    # Three prompts: into a second part; from the beginning; and to where parts become longer.
    longest = PARTS * SHORTEST_PART
    prompts = [range(SHORTEST_PART - 22, SHORTEST_PART + 19), range(21), range(longest - 5, longest + 6)]
    n_pages = longest // PAGE + 1
    cache = np.zeros((kv_heads, n_pages, Layout(kind, head_dim, head_dim).nbytes), np.uint8)
    some = [twins.pack_page(*rng.standard_normal((2, PAGE, head_dim)), kind) for _ in range(40)]
    cache[:] = [[some[i] for i in rng.integers(0, len(some), n_pages)] for _ in range(kv_heads)]
    tables = np.array([rng.permutation(n_pages) for _ in prompts], np.int32)
    positions = np.array([position for prompt in prompts for position in prompt], np.int32)
    segments = np.array([i for i, prompt in enumerate(prompts) for _ in prompt], np.int32)
    n = len(positions)
    assert n * kv_heads > SHARED
    queries = rng.standard_normal((n, kv_heads * group, head_dim)).astype(np.float32)
    scratch = np.zeros(attention.scratch_bytes(kv_heads, group, head_dim), np.uint8)

    def run(rows: slice) -> np.ndarray:
        out = np.zeros_like(queries[rows])
        call(
            isa, Kernel("seventy.kernels.attention:build", (kv_heads, group, head_dim, head_dim, kind)),
            attention.ARGUMENTS, threads=3, rows=count(len(out)), positions=positions[rows].copy(),
            segments=segments[rows].copy(),
            tables=tables, table_stride=tables.strides[0], queries=queries[rows].copy(),
            query_stride=queries.strides[0], cache=cache, n_pages=n_pages, scales=np.array([0.2], np.float32),
            scale_span=1 << 20, output=out, output_stride=out.strides[0], scratch=scratch,
        )  # fmt: skip
        return out

    together = run(slice(n))
    for row in range(n):
        assert np.array_equal(run(slice(row, row + 1))[0], together[row]), positions[row]
    for first, table in zip(np.cumsum([0, *map(len, prompts)]), tables, strict=False):
        position = int(positions[first])
        want = twins.attention(queries[first], cache, table, position, 0.2, Layout(kind, head_dim, head_dim))
        np.testing.assert_allclose(together[first], want, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", [3, 8])
def test_windows_and_sinks_equal_their_twin_and_rows_alone(group: int, kind: str, isa: Isa) -> None:
    rng = np.random.default_rng(group)
    kv_heads, head_dim, part = 2, 64, SHORTEST_PART
    layout = Layout(kind, head_dim, head_dim)
    kernel = Kernel("seventy.kernels.attention:build", (kv_heads, group, head_dim, head_dim, kind, True, True))
    sinks = rng.uniform(-4, 8, kv_heads * group).astype(np.float32)
    longest = PARTS * part
    n_pages = longest // PAGE + 1
    some = [twins.pack_page(*rng.standard_normal((2, PAGE, head_dim)), kind) for _ in range(40)]
    good = np.array([[some[i] for i in rng.integers(0, len(some), n_pages)] for _ in range(kv_heads)])
    with np.errstate(invalid="ignore"):
        no_numbers = twins.pack_page(*np.full((2, PAGE, head_dim), np.nan), kind)
    # Into a second part; from the beginning; where parts would become longer if there were no window; and one token.
    prompts = [range(part - 22, part + 19), range(21), range(longest - 5, longest + 6), range(2 * part, 2 * part + 1)]
    tables = np.array([rng.permutation(n_pages) for _ in prompts], np.int32)
    positions = np.array([position for prompt in prompts for position in prompt], np.int32)
    segments = np.array([i for i, prompt in enumerate(prompts) for _ in prompt], np.int32)
    queries = rng.standard_normal((len(positions), kv_heads * group, head_dim)).astype(np.float32) * 2
    scratch = np.zeros(attention.scratch_bytes(kv_heads, group, head_dim), np.uint8)
    assert len(positions) * kv_heads > SHARED

    def run(rows: slice, window: int, cache: np.ndarray) -> np.ndarray:
        out = np.zeros_like(queries[rows])
        call(
            isa, kernel, attention.ARGUMENTS, threads=3, rows=count(len(out)), positions=positions[rows].copy(),
            segments=segments[rows].copy(), tables=tables, table_stride=tables.strides[0],
            queries=queries[rows].copy(), query_stride=queries.strides[0], cache=cache, n_pages=n_pages,
            scales=np.array([0.2], np.float32), scale_span=1 << 20, output=out, output_stride=out.strides[0],
            scratch=scratch, sinks=sinks, window=window,
        )  # fmt: skip
        return out

    for window in (1, PAGE - 1, PAGE, 128, part + 100, longest - 1):
        together = run(slice(len(positions)), window, good)
        for row in {*range(0, len(positions), 5), len(positions) - 1}:
            position, table = int(positions[row]), tables[segments[row]]
            want = twins.attention(queries[row], good, table, position, 0.2, layout, window, sinks)
            np.testing.assert_allclose(together[row], want, rtol=2e-5, atol=1e-5)
            # Of pages before the window nothing matters, even where it is no number.
            cache = good.copy()
            cache[:, table[: max(0, position + 1 - window) // PAGE]] = no_numbers
            assert np.array_equal(run(slice(row, row + 1), window, cache)[0], together[row]), (window, position)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize(
    ("head_dim", "rope_dim", "more", "norm_values"), [(64, 64, 0, False), (128, 128, 0, True), (96, 48, 61, False)]
)
def test_rope_and_cache(
    head_dim: int, rope_dim: int, more: int, norm_values: bool, interleaved: bool, norm: bool, kind: str, isa: Isa
) -> None:
    rng = np.random.default_rng(rope_dim)
    kv_heads, group, n_pages = 2, 3, 9000
    factors = rng.uniform(1, 8, rope_dim // 2).astype(np.float32)
    rotary = Rotary(rope_dim, 10000.0, interleaved, lengthening=1.25)
    tables = rotary.tables(1 << 18, factors)
    assert tables.coarse.nbytes + tables.fine.nbytes < 1 << 20
    # The last position of a context of 256k still turns by the right angle.
    positions = np.array([0, 1, 31, 32, 199, 255, 256, (1 << 18) - 1, *range(1000, 1000 + more)], np.int32)
    n = len(positions)
    assert (n > PAGE) == (more > 0)
    queries = rng.standard_normal((n, kv_heads * group, head_dim)).astype(np.float32)
    keys, values = (rng.standard_normal((n, kv_heads, head_dim)).astype(np.float32) for _ in range(2))
    weights = rng.uniform(0.5, 2, (2, head_dim)).astype(np.float32)
    table = rng.permutation(n_pages).astype(np.int32)
    layout = Layout(kind, head_dim, head_dim)
    cache = np.zeros((kv_heads, n_pages, layout.nbytes), np.uint8)
    want_queries, want_keys = queries, keys
    if norm:
        want_queries, want_keys = (twins.rms_norm(x, w, 1e-6) for x, w in ((queries, weights[0]), (keys, weights[1])))
    angles = positions[:, None, None] * rotary.frequencies(factors)
    want_queries, want_keys = (
        twins.spread(twins.rotate(x, angles, 1.25, interleaved), layout) for x in (want_queries, want_keys)
    )
    parameters = (kv_heads, group, head_dim, rope_dim, interleaved, norm, kind, norm_values)
    call(
        isa, Kernel("seventy.kernels.rope:build", parameters),
        rope.ARGUMENTS, threads=2, rows=count(n), positions=positions, segments=np.zeros(n, np.int32), tables=table,
        table_stride=table.nbytes, coarse=tables.coarse, fine=tables.fine, queries=queries,
        query_stride=queries.strides[0], keys=keys, key_stride=keys.strides[0], values=values,
        value_stride=values.strides[0], cache=cache, n_pages=n_pages, query_norm=weights[0],
        key_norm=weights[1], epsilon=np.array([1e-6], np.float32),
    )  # fmt: skip
    np.testing.assert_allclose(queries, want_queries, rtol=1e-5, atol=3e-6)
    if norm_values:
        values = twins.rms_norm(values, np.float32(1), 1e-6)
    for row, position in enumerate(positions):
        for head in range(kv_heads):
            got = twins.unpack_page(cache[head, table[position // PAGE]], layout)
            for numbers, want in zip(got, (want_keys[row, head], values[row, head]), strict=True):
                # Half-precision neighbours where the float falls between two; a step of 127 in a block.
                most = np.abs(want).max() / 254 * 1.02 if kind == "q8_0" else 1e-6
                np.testing.assert_allclose(numbers[position % PAGE], want, rtol=1e-3, atol=most)
