"""What the experts of a row gave, weighed and added to the row; and what the expert gave that every row goes to."""

from seventy.jit.build import Module
from seventy.jit.simd import exp, fma
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "weights", "slots", "input", "stride", "output", "shared", "gate", "gate_stride")
_LANES = 16


def build(module: Module, used: int, shared: bool = False, gated: bool = False, add: bool = True) -> None:
    """Build the kernel that sums a row's experts: output[row] += sum over rank of weights[row, rank] * input[slots[row,
    rank]].

    Sums run in order of rank. Without `add`, the output is overwritten. With `shared`, shared[row] is added; with
    `gated`, it is first multiplied by the sigmoid of gate[row], the first f32 of a row of `gate_stride` bytes. Rows of
    input, shared and output are `stride` bytes of f32, whole panels; weights and slots are as in kernels/route.py.
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
        if shared:
            inputs.append(k("shared", pointer) + row * k("stride"))
            share = f.constant(f32, 1.0)
            if gated:
                share = 1.0 / (exp(-f.load(f32, k("gate", pointer), row * k("gate_stride"))) + 1.0)
            weights.append(share.splat(_LANES))
        with f.loop(f.constant(i64, 0), k("stride"), 4 * _LANES) as i:
            total = f.load(f32 * _LANES, inputs[0], i) * weights[0]
            for source, weight in zip(inputs[1:], weights[1:], strict=True):
                total = fma(f.load(f32 * _LANES, source, i), weight, total)
            f.store(f.load(f32 * _LANES, output, i) + total if add else total, output, i)
