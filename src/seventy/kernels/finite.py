"""Which rows of floats hold something that is no number."""

from seventy.jit.build import Module
from seventy.jit.simd import max_lanes
from seventy.jit.types import f32, i32, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "input", "stride", "bad")
_LANES = 16
_INFINITY = 0x7F800000
# Bytes of a row that one thread looks at: those of a large vocabulary are shared.
_PIECE = 1 << 15


def build(module: Module) -> None:
    """Build the kernel that sets bad[row], i32, to 1 if the row of `stride` bytes of f32 has a NaN or an infinity.

    Other rows' entries are not written.
    """
    k = Kernel(module, ARGUMENTS)
    f, stride = k.f, k("stride")
    pieces = (stride + (_PIECE - 1)) // _PIECE
    with k.claim(k.count("rows") * pieces) as item:
        row, start = item // pieces, item % pieces * _PIECE
        line = k("input", pointer) + row * stride
        # As integers, absolute values are ordered as the numbers are, infinity above them and NaN above that.
        largest = f.variable(i32 * _LANES, 0)
        with f.loop(start, (start + _PIECE).minimum(stride), 4 * _LANES) as i:
            magnitude = f.load(f32 * _LANES, line, i).view(i32 * _LANES) & 0x7FFFFFFF
            largest.set(magnitude.maximum(largest.get()))
        with f.when(max_lanes(largest.get()) >= _INFINITY):
            f.store(f.constant(i32, 1), k("bad", pointer), row * 4)
