"""Numbers held between -c and c without a hard edge (the soft cap of Gemma's logits, Gemma 2 2024)."""

from seventy.jit.build import Module
from seventy.jit.simd import exp
from seventy.jit.types import f32, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "input", "stride", "cap")
_LANES = 16
# Bytes of a row that one thread takes.
_PIECE = 1 << 14


def build(module: Module) -> None:
    """Build the kernel of input[row] = cap[0] * tanh(input[row] / cap[0]) for rows of `stride` bytes of f32, whole
    panels.

    A NaN or an infinity becomes NaN, so that kernels/finite.py still finds it.
    """
    k = Kernel(module, ARGUMENTS)
    f, stride = k.f, k("stride")
    cap = f.load(f32, k("cap", pointer)).splat(_LANES)
    pieces = (stride + (_PIECE - 1)) // _PIECE
    with k.claim(k.count("rows") * pieces) as item:
        line, start = k("input", pointer) + item // pieces * stride, item % pieces * _PIECE
        with f.loop(start, (start + _PIECE).minimum(stride), 4 * _LANES) as i:
            x = f.load(f32 * _LANES, line, i)
            tanh = 1.0 - 2.0 / (exp(x / cap * 2.0) + 1.0)
            f.store(cap * tanh + (x - x), line, i)
