import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import residual
from tests.support import twins
from tests.support.call import call, count


@pytest.mark.parametrize("columns", [48, 41])
def test_what_is_normalised_is_added_and_the_sum_multiplied(columns: int, isa: Isa) -> None:
    rng = np.random.default_rng(2)
    x, before = rng.standard_normal((2, 5, 48)).astype(np.float32)
    weight = rng.uniform(0.5, 2, 48).astype(np.float32)
    x[:, columns:] = before[:, columns:] = weight[columns:] = 0
    x[1] *= 1e-3
    out, factor = before.copy(), np.array([0.7], np.float32)
    call(
        isa, Kernel("seventy.kernels.residual:build"), residual.ARGUMENTS, threads=2, rows=count(5), input=x,
        columns=columns, stride=x.strides[0], weight=weight, epsilon=np.array([1e-6], np.float32), factor=factor,
        output=out,
    )  # fmt: skip
    normed = twins.rms_norm(x[:, :columns], weight[:columns], 1e-6)
    np.testing.assert_allclose(out[:, :columns], (before[:, :columns] + normed) * factor, rtol=1e-5, atol=1e-6)
    assert not out[:, columns:].any()
