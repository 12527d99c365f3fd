"""Multiplies and adds from registers as fast as the CPU can: the limit of matrix products.

The x of a step are loaded from a small buffer and meet y that stay in registers, so nothing can be computed once and
kept, and loads are too few to matter.
"""

from seventy.jit.build import Module, Value
from seventy.jit.simd import dot_bytes, fma, multiply_pairs, pair_sums
from seventy.jit.types import f32, i16, i32, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("x", "x_bytes", "y", "passes", "arrived", "sums")
# pmaddubsw adds two products of 4-bit weights; eight such sums fit 16 bits.
GROUP = 8


def shape(vnni: bool) -> tuple[int, int]:
    """Return how many x and y a step has: enough sums to hide the latency, few enough for 32 registers, or 16."""
    return (3, 4) if vnni else (3, 3)


def operations(kind: str, lanes: int, pairs: int) -> int:
    """Count the operations of one step, two per multiply-add."""
    return 2 * pairs * lanes * {"f32": 1, "bytes": 4, "nibbles": 4 * GROUP}[kind]


def build(module: Module, kind: str, lanes: int, xs: int, ys: int) -> None:
    """Build the kernel that measures peak arithmetic: sums[thread, i, j] += x[step, i] . y[j] over all steps, `passes`
    times.

    `kind` is f32, `bytes` (unsigned x, signed y, summed by fours into 32 bits) or `nibbles` (the same for x below 16:
    eight steps are added in 16 bits before they are widened, as kernels do on AVX2). Vectors have `lanes` 32-bit lanes;
    `sums` has xs * ys of them per thread. Threads begin together.
    """
    k = Kernel(module, ARGUMENTS)
    f = k.f
    k.begin_together(k("arrived", pointer))
    vector = (f32 if kind == "f32" else i32) * lanes
    y = [f.load(vector, k("y", pointer), j * vector.nbytes) for j in range(ys)]
    sums = [[f.variable(vector, 0) for _ in range(ys)] for _ in range(xs)]
    steps = GROUP if kind == "nibbles" else 1
    step_bytes = steps * xs * vector.nbytes
    ones = f.constant(i16 * (2 * lanes), 1)
    with f.loop(k("passes")), f.loop(0, k("x_bytes"), step_bytes) as offset:
        place = k("x", pointer) + offset
        for i in range(xs):
            pairs: list[Value | None] = [None] * ys
            for s in range(steps):
                x = f.load(vector, place, (s * xs + i) * vector.nbytes)
                for j, total in enumerate(sums[i]):
                    if kind == "f32":
                        total.set(fma(x, y[j], total.get()))
                    elif kind == "bytes":
                        total.set(dot_bytes(total.get(), x, y[j]))
                    else:
                        here, before = pair_sums(x, y[j]), pairs[j]
                        pairs[j] = here if before is None else before + here
            for total, pair in zip(sums[i], pairs, strict=True):
                if pair is not None:
                    total.set(total.get() + multiply_pairs(pair, ones))
    out = k("sums", pointer) + k.thread * (xs * ys * vector.nbytes)
    for i in range(xs):
        for j in range(ys):
            f.store(sums[i][j].get(), out, (i * ys + j) * vector.nbytes)

