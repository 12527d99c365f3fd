"""What a block made, normalised and added to the rows it was made of (the post-norms of Gemma 2 to 4)."""

from seventy.jit.build import Module
from seventy.jit.types import f32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import inverse_rms

ARGUMENTS = ("rows", "input", "columns", "stride", "weight", "epsilon", "factor", "output")
_LANES = 16


def build(module: Module) -> None:
    """Build the kernel of output[row] = (output[row] + input[row] / rms(input[row]) * weight) * factor[0].

    Rows of `columns` f32 are `stride` bytes, whole panels, and so is the weight.
    """
    k = Kernel(module, ARGUMENTS)
    f, vector = k.f, f32 * _LANES
    with k.claim(k.count("rows")) as row:
        source, target = (k(name, pointer) + row * k("stride") for name in ("input", "output"))
        inverse = inverse_rms(k, source, k("columns")).splat(_LANES)
        factor = f.load(f32, k("factor", pointer)).splat(_LANES)
        with f.loop(f.constant(i64, 0), k("stride"), 4 * _LANES) as i:
            normed = f.load(vector, source, i) * inverse * f.load(vector, k("weight", pointer), i)
            f.store((f.load(vector, target, i) + normed) * factor, target, i)
