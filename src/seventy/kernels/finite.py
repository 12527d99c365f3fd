"""Which rows of floats hold something that is no number."""

from seventy.jit.build import Module
from seventy.jit.simd import max_lanes
from seventy.jit.types import f32, i32, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "input", "stride", "bad")
_LANES = 16
_INFINITY = 0x7F800000


def build(module: Module) -> None:
    """bad[row], i32, = 1 where the row of `stride` bytes of f32 has a NaN or an infinity, else 0."""
    k = Kernel(module, ARGUMENTS)
    f = k.f
    with k.claim(k.count("rows")) as row:
        line = k("input", pointer) + row * k("stride")
        # As integers, absolute values are ordered as the numbers are, infinity above them and NaN above that.
        largest = f.variable(i32 * _LANES, 0)
        with f.loop(0, k("stride"), 4 * _LANES) as i:
            magnitude = f.load(f32 * _LANES, line, i).view(i32 * _LANES) & 0x7FFFFFFF
            largest.set(magnitude.maximum(largest.get()))
        bad = (max_lanes(largest.get()) >= _INFINITY).select(f.constant(i32, 1), 0)
        f.store(bad, k("bad", pointer), row * 4)
