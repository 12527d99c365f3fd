import numpy as np

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import finite
from tests.support.call import call, count


def test_rows_that_are_no_numbers_are_marked(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((40, 48)) * 1e30).astype(np.float32)
    x[0], x[1] = np.finfo(np.float32).max, -np.finfo(np.float32).max
    x[2], x[3] = 0, np.float32(1e-45)
    wrong = {5: np.nan, 9: -np.nan, 17: np.inf, 39: -np.inf}
    for i, (row, value) in enumerate(wrong.items()):
        x[row, [0, 47, 16, 31][i]] = value
    bad = np.zeros(40, np.int32)
    call(
        isa, Kernel("seventy.kernels.finite:build"), finite.ARGUMENTS, threads=3, rows=count(40), input=x,
        stride=x.strides[0], bad=bad,
    )  # fmt: skip
    assert set(np.flatnonzero(bad)) == set(wrong)
    assert set(bad) == {0, 1}


def test_long_rows_are_looked_at_to_their_end(isa: Isa) -> None:
    # Rows of several threads' pieces, the last one short.
    x = np.ones((5, 20_016), np.float32)
    x[1, 0], x[2, 8192], x[4, 20_015] = np.nan, np.inf, -np.inf
    bad = np.zeros(5, np.int32)
    call(
        isa, Kernel("seventy.kernels.finite:build"), finite.ARGUMENTS, threads=3, rows=count(5), input=x,
        stride=x.strides[0], bad=bad,
    )  # fmt: skip
    assert bad.tolist() == [0, 1, 1, 0, 1]
