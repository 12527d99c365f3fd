"""What the experts of a row gave, weighed and added to the row."""

from seventy.jit.build import Module
from seventy.jit.simd import fma
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "weights", "slots", "input", "stride", "output")
_LANES = 16


def build(module: Module, used: int) -> None:
    """output[row] += sum over rank of weights[row, rank] * input[slots[row, rank]], in order of rank.

    Rows of input and output are `stride` bytes of f32, whole panels; weights and slots as in kernels/route.py.
    """
    k = Kernel(module, ARGUMENTS)
    f = k.f
    with k.claim(k.count("rows")) as row:
        lists = row * (4 * used)
        inputs, weights = [], []
        for rank in range(used):
            slot = f.load(i32, k("slots", pointer) + lists, 4 * rank).to(i64)
            inputs.append(k("input", pointer) + slot * k("stride"))
            weights.append(f.load(f32, k("weights", pointer) + lists, 4 * rank).splat(_LANES))
        output = k("output", pointer) + row * k("stride")
        with f.loop(f.constant(i64, 0), k("stride"), 4 * _LANES) as i:
            total = f.load(f32 * _LANES, inputs[0], i) * weights[0]
            for source, weight in zip(inputs[1:], weights[1:], strict=True):
                total = fma(f.load(f32 * _LANES, source, i), weight, total)
            f.store(f.load(f32 * _LANES, output, i) + total, output, i)
