import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import activations
from seventy.kernels.activations import _COLUMNS, _GROUP, KINDS
from tests.support import twins
from tests.support.call import call, count


def made(isa: Isa, source: str, kind: str, n: int, capacity: int, columns: int, **arguments: object) -> np.ndarray:
    out = np.zeros(KINDS[kind].nbytes(capacity, columns), np.uint8)
    call(
        isa, Kernel("seventy.kernels.activations:build", (source, kind)), activations.ARGUMENTS, threads=2,
        rows=count(n), output=out, capacity=capacity, columns=columns, **arguments,
    )  # fmt: skip
    return out


def inputs(n: int, columns: int) -> np.ndarray:
    x = np.random.default_rng(n).standard_normal((n, columns)).astype(np.float32)
    x[0, : columns // 2] = 0
    x[-1] *= 1e20
    if n > 2:
        x[1] *= 1e-20
        x[2, ::7] = 1e4
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 13, 29])
def test_plain_equals_its_twin_to_the_bit(kind: str, n: int, isa: Isa) -> None:
    x = inputs(n, 512)
    got = made(isa, "plain", kind, n, n + 3, 512, a=x, a_stride=x.strides[0])
    want = twins.activations(x, kind, n + 3, isa)
    assert np.array_equal(got, want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 8, 9])
def test_rows_that_threads_share(kind: str, n: int, isa: Isa) -> None:
    columns = 2 * _COLUMNS + 512
    x = inputs(n, columns)
    got = made(isa, "plain", kind, n, n, columns, a=x, a_stride=x.strides[0])
    assert np.array_equal(got, twins.activations(x, kind, n, isa))


def test_a_shared_row_is_as_one_alone(isa: Isa) -> None:
    columns = 2 * _COLUMNS + 512
    x, rest = inputs(_GROUP + 1, columns), {"b": np.ones(columns, np.float32), "epsilon": np.ones(1, np.float32)}
    shared, whole = (
        made(isa, "norm", "q8_256", n, n, columns, a=x, a_stride=x.strides[0], **rest)
        for n in (_GROUP, _GROUP + 1)
    )
    # The first section: the rows' bytes, tile by tile, and both have the same tiles.
    nbytes = _GROUP * columns
    assert np.array_equal(shared[:nbytes], whole[:nbytes])


@pytest.mark.parametrize("columns", [32, 96, 576])
def test_columns_need_only_be_whole_blocks(columns: int, isa: Isa) -> None:
    x = inputs(5, columns)
    got = made(isa, "plain", "q8_32", 5, 5, columns, a=x, a_stride=x.strides[0])
    assert np.array_equal(got, twins.activations(x, "q8_32", 5, isa))


@pytest.mark.parametrize("columns", [16, 37, 576])
def test_norm(columns: int, isa: Isa) -> None:
    x = inputs(6, columns)
    x[-1] /= 1e18
    weight = np.random.default_rng(9).standard_normal(columns).astype(np.float32)
    got = made(
        isa, "norm", "f32", 6, 6, columns, a=x, a_stride=x.strides[0], b=weight, epsilon=np.array([1e-5], np.float32)
    )
    want = twins.activations(twins.rms_norm(x, weight, 1e-5).astype(np.float32), "f32", 6, isa)
    np.testing.assert_allclose(got.view(np.float32), want.view(np.float32), rtol=2e-6, atol=1e-30)


# What e is raised to is rounded before: 1.702 a, and the cube in GELU.
@pytest.mark.parametrize(
    ("source", "rtol"), [("swiglu", 2e-6), ("sigmoid", 2e-6), ("geglu", 4e-5), ("clamped_swiglu", 8e-6)]
)
def test_gates(source: str, rtol: float, isa: Isa) -> None:
    gate, up = (np.random.default_rng(i).standard_normal((6, 64)).astype(np.float32) * 10 for i in range(2))
    gate[0, :4] = [90, -90, 1e4, -1e4]
    gate[1, :2] = up[1, 1:3] = np.nan
    got = made(isa, source, "f32", 6, 6, 64, a=gate, a_stride=256, b=up, b_stride=256)
    want = twins.activations(getattr(twins, source)(gate, up).astype(np.float32), "f32", 6, isa)
    np.testing.assert_allclose(got.view(np.float32), want.view(np.float32), rtol=rtol, atol=1e-30)


def test_rows_by_map(isa: Isa) -> None:
    x, rows = inputs(9, 64), np.array([8, 0, 3], np.int32)
    got = made(isa, "plain", "f32", 3, 4, 64, a=x, a_stride=x.strides[0], row_map=rows)
    assert np.array_equal(got, twins.activations(x[rows], "f32", 4, isa))


@pytest.mark.parametrize("kind", ["q8_256", "q8_32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_none(kind: str, bad: float, isa: Isa) -> None:
    x = inputs(1, 512)
    x[0, 300] = bad
    got = made(isa, "plain", kind, 1, 1, 512, a=x, a_stride=x.strides[0])
    scales = got.view(np.float32)[128 : 128 + 512 // KINDS[kind].block]
    assert np.flatnonzero(~np.isfinite(scales)).tolist() == [300 // KINDS[kind].block]
