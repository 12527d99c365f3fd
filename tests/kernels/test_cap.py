import numpy as np

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import cap
from tests.support.call import call, count


def test_numbers_are_held_and_what_is_no_number_stays_none(isa: Isa) -> None:
    # Rows of more than one thread's piece.
    x = np.random.default_rng(2).standard_normal((3, 4112)).astype(np.float32) * 30
    x[0, :6] = 0, 1e-6, 1e30, -1e30, 29.99, -1e-30
    x[1, 4100:4103] = np.nan, np.inf, -np.inf
    out = x.copy()
    call(
        isa, Kernel("seventy.kernels.cap:build"), cap.ARGUMENTS, threads=2, rows=count(3), input=out,
        stride=out.strides[0], cap=np.array([30], np.float32),
    )  # fmt: skip
    number = np.isfinite(x)
    np.testing.assert_allclose(out[number], 30 * np.tanh(x[number].astype(np.float64) / 30), rtol=2e-6, atol=1e-5)
    assert np.isnan(out[~number]).all()
