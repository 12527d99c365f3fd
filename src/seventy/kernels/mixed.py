"""What enters a layer of each token's own: a part of its table's row, and of what a matrix made of its embedding."""

from seventy.jit.build import Module
from seventy.jit.simd import fma
from seventy.jit.types import f32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import inverse_rms

ARGUMENTS = ("rows", "tokens", "projected", "stride", "start", "norm", "epsilon", "factors", "output")
_LANES = 16


def build(module: Module, width: int) -> None:
    """Build the kernel of output[row] = (factors[0] * tokens[row] + RMSNorm(factors[1] * projected[row]; norm,
    epsilon)) / sqrt(2).

    Of input rows of `stride` bytes of f32, it reads the `width` floats from byte `start` on (a multiple of 16 of them);
    output rows have `width` floats.
    """
    k = Kernel(module, ARGUMENTS)
    f, vector = k.f, f32 * _LANES
    factor, scale = (f.load(f32, k("factors", pointer), 4 * i) for i in (0, 1))
    scaled = f.memory(4 * width)
    with k.claim(k.count("rows")) as row:
        tokens, projected = (k(name, pointer) + row * k("stride") + k("start") for name in ("tokens", "projected"))
        output = k("output", pointer) + row * (4 * width)
        with f.loop(0, 4 * width, 4 * _LANES) as i:
            f.store(f.load(vector, projected, i) * scale.splat(_LANES), scaled, i)
        inverse = inverse_rms(k, scaled, f.constant(i64, width)).splat(_LANES)
        with f.loop(0, 4 * width, 4 * _LANES) as i:
            normed = f.load(vector, scaled, i) * inverse * f.load(vector, k("norm", pointer), i)
            total = fma(f.load(vector, tokens, i), factor.splat(_LANES), normed)
            f.store(total * 0.5**0.5, output, i)
