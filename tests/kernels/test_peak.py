import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa, supported
from seventy.kernels import peak
from tests.support.call import call


def kinds(isa: Isa) -> list[str]:
    return ["f32", "bytes", "nibbles"] if isa.dot == "maddubs" else ["f32", "bytes"]


CASES = [(isa, kind) for isa in supported() for kind in kinds(isa)]


@pytest.mark.parametrize(("isa", "kind"), CASES, ids=lambda value: getattr(value, "name", value))
def test_equals_numpy(isa: Isa, kind: str) -> None:
    threads, passes, steps = 2, 3, 2 * peak.GROUP
    xs, ys = peak.shape(isa.dot == "vnni")
    random = np.random.default_rng(7)
    width = isa.lanes if kind == "f32" else 4 * isa.lanes
    if kind == "f32":
        # Integers: exact in whatever order they are added.
        x = random.integers(-9, 10, (steps, xs, width)).astype(np.float32)
        y = random.integers(-9, 10, (ys, width)).astype(np.float32)
    else:
        x = random.integers(0, 16 if kind == "nibbles" else 128, (steps, xs, width)).astype(np.uint8)
        x[0], x[-1] = x.max(), x.max()
        y = random.integers(-127, 128, (ys, width)).astype(np.int8)
        y[0] = -127
    sums = np.zeros((threads, xs, ys, isa.lanes), np.float32 if kind == "f32" else np.int32)
    call(
        isa,
        Kernel("seventy.kernels.peak:build", (kind, isa.lanes, xs, ys)),
        peak.ARGUMENTS,
        threads,
        x=x,
        x_bytes=x.nbytes,
        y=y,
        passes=passes,
        arrived=np.zeros(1, np.int64),
        sums=sums,
    )
    products = x[:, :, None].astype(np.int64) * y[None, None].astype(np.int64)
    expected = passes * products.reshape(steps, xs, ys, isa.lanes, -1).sum(axis=(0, 4))
    assert np.array_equal(sums, np.broadcast_to(expected, sums.shape))
