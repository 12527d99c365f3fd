import numpy as np
import pytest

from kernels import twins
from kernels.call import address, call, count
from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import attention, rope
from seventy.kernels.attention import PAGE, SPLIT
from seventy.models.rotary import Rotary


@pytest.mark.parametrize(("kv_heads", "group", "head_dim"), [(1, 1, 64), (2, 3, 64), (2, 8, 128), (1, 9, 96)])
def test_attention_equals_its_twin(kv_heads: int, group: int, head_dim: int, isa: Isa) -> None:
    rng = np.random.default_rng(head_dim)
    positions = np.array([0, 1, PAGE - 1, PAGE, 5 * PAGE + 7, SPLIT - 1, SPLIT, 2 * SPLIT + 77], np.int32)
    n, n_pages = len(positions), 3 * SPLIT // PAGE
    cache = rng.standard_normal((kv_heads, n_pages, 2, PAGE * head_dim)).astype(np.float16)
    # What lies past a row's position must not matter, even where it is no number.
    table = rng.permutation(n_pages).astype(np.int32)
    cache[:, table[(2 * SPLIT + 77) // PAGE], 0].reshape(kv_heads, head_dim, PAGE)[..., 78 % PAGE :] = np.nan
    cache[:, table[(2 * SPLIT + 77) // PAGE], 1].reshape(kv_heads, PAGE, head_dim)[:, 78 % PAGE :] = np.nan
    queries = rng.standard_normal((n, kv_heads * group, head_dim)).astype(np.float32) * 3
    out = np.zeros_like(queries)
    scale = np.array([head_dim**-0.5], np.float32)
    arguments = {
        "positions": positions, "tables": np.full(n, address(table), np.int64), "queries": queries,
        "query_stride": queries.strides[0], "cache": cache, "n_pages": n_pages, "scale": scale,
    }  # fmt: skip
    kernel = Kernel("seventy.kernels.attention:build", (kv_heads, group, head_dim))
    call(isa, kernel, attention.ARGUMENTS, threads=3, rows=count(n), output=out, **arguments)
    for row, position in enumerate(positions):
        want = twins.attention(queries[row], cache, table, position, head_dim**-0.5)
        # Scores of about 10 are right to 1e-6 in f32, so are the weights, and so is a sum of values of about 1.
        np.testing.assert_allclose(out[row], want, rtol=2e-5, atol=1e-5)

    # A row alone, in other pages, is the same to the bit.
    other = (table[::-1].copy() + 0).astype(np.int32)
    moved = np.empty_like(cache)
    moved[:, other] = cache[:, table]
    alone = np.zeros_like(out[:1])
    arguments |= {"positions": positions[-1:], "queries": queries[-1:].copy(), "cache": moved}
    arguments["tables"] = np.array([address(other)], np.int64)
    call(isa, kernel, attention.ARGUMENTS, rows=count(1), output=alone, **arguments)
    assert np.array_equal(alone[0], out[-1])


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize(("head_dim", "rope_dim"), [(64, 64), (128, 128), (96, 48)])
def test_rope_and_cache(head_dim: int, rope_dim: int, interleaved: bool, isa: Isa) -> None:
    rng = np.random.default_rng(rope_dim)
    kv_heads, group, n_pages = 2, 3, 9
    factors = rng.uniform(1, 8, rope_dim // 2).astype(np.float32)
    cosines, sines = Rotary(rope_dim, 10000.0, 1.0, factors, interleaved).tables(200)
    positions = np.array([0, 1, 31, 32, 199], np.int32)
    n = len(positions)
    queries = rng.standard_normal((n, kv_heads * group, head_dim)).astype(np.float32)
    keys, values = (rng.standard_normal((n, kv_heads, head_dim)).astype(np.float32) for _ in range(2))
    table = rng.permutation(n_pages).astype(np.int32)
    cache = np.zeros((kv_heads, n_pages, 2, PAGE * head_dim), np.float16)
    want_cache = cache.copy()
    want_queries = twins.rotate(queries, cosines[positions][:, None], sines[positions][:, None], interleaved)
    want_keys = twins.rotate(keys, cosines[positions][:, None], sines[positions][:, None], interleaved)
    for row, position in enumerate(positions):
        twins.write_cache(want_cache, table, position, want_keys[row], values[row])
    call(
        isa, Kernel("seventy.kernels.rope:build", (kv_heads, group, head_dim, rope_dim, interleaved)), rope.ARGUMENTS,
        threads=2, rows=count(n), positions=positions, tables=np.full(n, address(table), np.int64), cosines=cosines,
        sines=sines, queries=queries, query_stride=queries.strides[0], keys=keys, values=values,
        key_stride=keys.strides[0], cache=cache, n_pages=n_pages,
    )  # fmt: skip
    np.testing.assert_allclose(queries, want_queries, rtol=1e-5, atol=1e-6)
    # Half-precision neighbours where the float falls between two.
    np.testing.assert_allclose(cache.astype(np.float32), want_cache.astype(np.float32), rtol=1e-3, atol=1e-6)
