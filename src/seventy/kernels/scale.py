"""Products times the one factor that some files give beside a matrix (`.scale`: the second scale of NVFP4)."""

from seventy.jit.build import Module
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "input", "stride", "factors", "output", "bias", "active", "starts")
_LANES = 16


def build(module: Module, biased: bool, add: bool) -> None:
    """Build the kernel of output[row] = factors[0] * input[row], plus the bias if there is one; or add that to the
    output.

    Rows are `stride` bytes of f32, whole panels, and so is the bias.
    """
    k = Kernel(module, ARGUMENTS)
    f, vector = k.f, f32 * _LANES
    with k.claim(k.count("rows")) as row:
        factor = f.load(f32, k("factors", pointer)).splat(_LANES)
        source, target = (k(name, pointer) + row * k("stride") for name in ("input", "output"))
        with f.loop(f.constant(i64, 0), k("stride"), 4 * _LANES) as i:
            y = f.load(vector, source, i) * factor
            if biased:
                y = y + f.load(vector, k("bias", pointer), i)
            if add:
                y = y + f.load(vector, target, i)
            f.store(y, target, i)


def build_of_experts(module: Module, biased: bool) -> None:
    """Build the kernel of output[slot] *= factors[expert of the slot], plus the expert's row of `bias` if there is one.

    `active` and `starts` are as in kernels/route.py, rows as in `build`.
    """
    k = Kernel(module, ARGUMENTS)
    f, vector = k.f, f32 * _LANES
    with k.claim(f.load(i32, k("active", pointer)).to(i64)) as which:
        expert = f.load(i32, k("active", pointer), which * 4 + 4).to(i64)
        factor = f.load(f32, k("factors", pointer), expert * 4).splat(_LANES)
        bias = k("bias", pointer) + expert * k("stride")
        first, last = (f.load(i32, k("starts", pointer), which * 4 + 4 * i).to(i64) for i in (0, 1))
        with f.loop(first, last) as slot:
            row = k("output", pointer) + slot * k("stride")
            with f.loop(f.constant(i64, 0), k("stride"), 4 * _LANES) as i:
                y = f.load(vector, row, i) * factor
                f.store(y + f.load(vector, bias, i) if biased else y, row, i)
