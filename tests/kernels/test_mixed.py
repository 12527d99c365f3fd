import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import mixed
from tests.support.call import call, count


@pytest.mark.parametrize("width", [16, 48])
def test_a_layers_part_of_both_is_mixed(width: int, isa: Isa) -> None:
    rng = np.random.default_rng(width)
    tokens, projected = (rng.standard_normal((5, 3 * width)).astype(np.float32) for _ in range(2))
    norm, factors = rng.uniform(0.5, 1.5, width).astype(np.float32), np.array([7.0, 0.02], np.float32)
    epsilon, out = np.array([1e-6], np.float32), np.zeros((5, width), np.float32)
    call(
        isa, Kernel("seventy.kernels.mixed:build", (width,)), mixed.ARGUMENTS, threads=2, rows=count(5), tokens=tokens,
        projected=projected, stride=tokens.strides[0], start=4 * width, norm=norm, epsilon=epsilon, factors=factors,
        output=out,
    )  # fmt: skip
    own = np.s_[:, width : 2 * width]
    scaled = projected[own].astype(np.float64) * factors[1]
    normed = scaled / np.sqrt((scaled * scaled).mean(1, keepdims=True) + epsilon) * norm
    np.testing.assert_allclose(out, (tokens[own] * factors[0] + normed) / 2**0.5, rtol=2e-6, atol=2e-6)
