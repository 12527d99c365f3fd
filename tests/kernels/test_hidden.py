import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import hidden
from seventy.kernels.pages import PAGE
from tests.support.call import call, count

EPSILON = np.array([1e-6], np.float32)
# Rows of two texts, at the edges of pages, and which pages these have.
POSITIONS, SEGMENTS = np.array([0, PAGE - 1, PAGE, 2 * PAGE, 1, 70], np.int32), np.array([0, 0, 0, 1, 1, 1], np.int32)
TABLES = np.array([[4, 2, 7, 0], [1, 5, 3, 6]], np.int32)


def normalised(rows: np.ndarray, norm: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.sqrt((rows * rows).mean(-1, keepdims=True) + EPSILON) * norm


def some_rows(rng: np.random.Generator, columns: int) -> np.ndarray:
    """Random rows, one of zeros, one of tiny and one of very large numbers, with room behind each."""
    rows = rng.standard_normal((len(POSITIONS), columns + 16)).astype(np.float32)
    rows[1], rows[2], rows[3] = 0, rows[2] * np.float32(1e-30), rows[3] * np.float32(1e15)
    return rows


def places(columns: int, cache: np.ndarray) -> dict[str, object]:
    return {
        "positions": POSITIONS, "segments": SEGMENTS, "tables": TABLES, "table_stride": TABLES.strides[0],
        "cache": cache, "columns": columns, "epsilon": EPSILON,
    }  # fmt: skip


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("columns", [16, 48, 1040])
def test_rows_are_kept_by_their_positions(columns: int, mapped: bool, isa: Isa) -> None:
    rng = np.random.default_rng(columns)
    rows, norm = some_rows(rng, columns), rng.uniform(0.5, 1.5, columns).astype(np.float32)
    wanted = np.array([4, 0, 3], np.int32) if mapped else np.arange(len(POSITIONS), dtype=np.int32)
    for norms in (True, False):
        cache = np.full((8, PAGE, columns), 7, np.float16)
        call(
            isa, Kernel("seventy.kernels.hidden:build_keep", (norms,)), hidden.KEEP_ARGUMENTS, threads=2,
            rows=count(len(wanted)), **places(columns, cache), input=rows, stride=rows.strides[0], norm=norm,
            **({"row_map": wanted} if mapped else {}),
        )  # fmt: skip
        with np.errstate(over="ignore"):
            want = (normalised(rows[:, :columns], norm) if norms else rows[:, :columns]).astype(np.float16)
        at = TABLES[SEGMENTS, POSITIONS // PAGE], POSITIONS % PAGE
        # Half a unit in the last place of what is nearly between two.
        np.testing.assert_allclose(cache[at][wanted], want[wanted], rtol=1e-3, atol=1e-7)
        cache[at[0][wanted], at[1][wanted]] = 7
        assert (cache == 7).all()


@pytest.mark.parametrize("columns", [16, 48, 1040])
def test_what_was_kept_before_is_joined_to_the_embedding(columns: int, isa: Isa) -> None:
    rng = np.random.default_rng(columns)
    rows, norms = some_rows(rng, columns), rng.uniform(0.5, 1.5, (2, columns)).astype(np.float32)
    cache = rng.standard_normal((8, PAGE, columns)).astype(np.float16)
    # The largest and the smallest numbers that there are, and nothing.
    cache[4, PAGE - 2], cache[4, PAGE - 1], cache[5, PAGE - 1] = 65504, 6e-8, 0
    before = cache[TABLES[SEGMENTS, (POSITIONS - 1) // PAGE], (POSITIONS - 1) % PAGE].astype(np.float32)
    before[0] = 0
    for normed in (True, False):
        out = np.full((len(rows), 2 * columns + 16), 7, np.float32)
        call(
            isa, Kernel("seventy.kernels.hidden:build_join", (normed,)), hidden.JOIN_ARGUMENTS, threads=2,
            rows=count(len(rows)), **places(columns, cache), embedding=rows, embedding_stride=rows.strides[0],
            embedding_norm=norms[0], norm=norms[1], output=out, output_stride=out.strides[0],
        )  # fmt: skip
        first, second = rows[:, :columns], before
        if normed:
            first, second = normalised(first, norms[0]), normalised(second, norms[1])
        np.testing.assert_allclose(out[:, :columns], first, rtol=3e-6, atol=1e-37)
        np.testing.assert_allclose(out[:, columns:-16], second, rtol=3e-6, atol=1e-37)
        assert (out[:, -16:] == 7).all() and not out[0, columns:-16].any()
