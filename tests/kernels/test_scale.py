import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import scale
from tests.support.call import call, count


@pytest.mark.parametrize(("biased", "add"), [(False, False), (True, True)])
def test_rows_are_multiplied_by_the_factor_of_their_matrix(biased: bool, add: bool, isa: Isa) -> None:
    rng = np.random.default_rng(2)
    x, before = rng.standard_normal((2, 5, 48)).astype(np.float32)
    bias, factor, out = rng.standard_normal(48).astype(np.float32), np.array([0.7], np.float32), before.copy()
    call(
        isa, Kernel("seventy.kernels.scale:build", (biased, add)), scale.ARGUMENTS, threads=2, rows=count(5),
        input=x, stride=x.strides[0], factors=factor, output=out, bias=bias,
    )  # fmt: skip
    want = x.astype(np.float64) * factor + (bias if biased else 0) + (before if add else 0)
    np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("biased", [False, True])
def test_slots_are_multiplied_by_the_factors_of_their_experts(biased: bool, isa: Isa) -> None:
    rng = np.random.default_rng(2)
    x, factors = rng.standard_normal((7, 32)).astype(np.float32), rng.uniform(0.5, 2, 16).astype(np.float32)
    # An expert of zeros has the factor 0, and may have a bias all the same.
    factors[4] = 0
    bias, out = rng.standard_normal((16, 32)).astype(np.float32), x.copy()
    call(
        isa, Kernel("seventy.kernels.scale:build_of_experts", (biased,)), scale.ARGUMENTS, threads=2,
        stride=x.strides[0], factors=factors, output=out, bias=bias, active=np.array([3, 1, 4, 6], np.int32),
        starts=np.array([0, 2, 3, 7], np.int32),
    )  # fmt: skip
    experts = [1, 1, 4, 6, 6, 6, 6]
    want = x * factors[experts][:, None] + (bias[experts] if biased else 0)
    np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-6)
