"""A causal convolution of a few taps over each channel, whose window goes on from step to step.

Of each sequence the last taps - 1 rows of inputs are kept, [taps - 1, channels] in f32: a step reads them from one
state and writes those after its last row to another (cache/states.py). Drafted rows may be wrong: their inputs are
written behind that window, and the next step begins after those that turned out right.
"""

from seventy.jit.build import Module, Value
from seventy.jit.simd import exp, fma, sum_lanes
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = (
    "segments", "starts", "states", "memory", "state_bytes", "input", "input_stride", "before", "after", "weights",
    "epsilon", "output", "output_stride",
)  # fmt: skip
_LANES = 16
# Drafted rows of a text that a state has room for.
MAX_PENDING = 7


def window_shape(taps: int, channels: int) -> tuple[int, int]:
    """Return the shape of what a sequence keeps: its window, and the inputs of drafted rows behind it."""
    return taps - 1 + MAX_PENDING, channels


def build(module: Module, taps: int, dim: int, heads: int, normalised: int, gated: bool = False) -> None:
    """Build the kernel of a causal convolution: output[row] = silu(sum over j of weights[j] * input[row - taps + 1 +
    j]), per channel.

    If `gated` (LFM2, Liquid AI 2025) there is no silu: the input is first multiplied by `before`, in place, and the sum
    by `after`, both in rows of `input_stride` bytes like the input.

    The rows of segment s are starts[s] to starts[s + 1] - 1, i32. Earlier rows come from state states[s, 0], each of
    `state_bytes` at `memory`: its window and the next states[s, 2] rows, pending since the last step. What the next
    step needs is written to state states[s, 1]: the window before the last states[s, 3] rows, which are drafted, and
    those rows; at least one row is not drafted. Channels are `heads` heads of `dim`, a multiple of 16; the first
    `normalised` heads are divided by sqrt(sum of squares + epsilon). `weights` are f32 [taps, channels].
    """
    k = Kernel(module, ARGUMENTS)
    f, vector, channels = k.f, f32 * _LANES, heads * dim
    with k.claim(k.count("segments") * heads) as item:
        segment, head = item // heads, item % heads
        first, last, old, new, pending, drafted = segment_of(k, segment)
        begin = head * (4 * dim)
        if gated:
            _multiply(k, first, last, begin, dim)

        def inputs(row: Value) -> Value:
            """Where the head's inputs of a row lie, up to taps - 1 rows before the first of the segment."""
            known = old + (row - first + pending + (taps - 1)) * (4 * channels)
            return (row < first).select(known, k("input", pointer) + row * k("input_stride")) + begin

        with f.loop(first, last) as row:
            seen = [inputs(row - (taps - 1 - j)) for j in range(taps)]
            weights, out = k("weights", pointer) + begin, k("output", pointer) + row * k("output_stride") + begin
            with f.loop(0, 4 * dim, 4 * _LANES) as i:
                total = f.load(vector, seen[0], i) * f.load(vector, weights, i)
                for j, x in enumerate(seen[1:], 1):
                    total = fma(f.load(vector, x, i), f.load(vector, weights, i + 4 * channels * j), total)
                if gated:
                    after = k("after", pointer) + row * k("input_stride") + begin
                    f.store(total * f.load(vector, after, i), out, i)
                else:
                    f.store(total / (exp(-total) + 1.0), out, i)
            with f.when(head < normalised):
                _normalise(k, out, dim)
        with f.loop(drafted + (taps - 1)) as kept:
            source, target = inputs(last - drafted - (taps - 1) + kept), new + kept * (4 * channels) + begin
            with f.loop(0, 4 * dim, 4 * _LANES) as i:
                f.store(f.load(vector, source, i), target, i)


def _multiply(k: Kernel, first: Value, last: Value, begin: Value, dim: int) -> None:
    """input[row] *= before[row] in the columns of a head."""
    f, vector = k.f, f32 * _LANES
    with f.loop(first, last) as row:
        x, before = (k(name, pointer) + row * k("input_stride") + begin for name in ("input", "before"))
        with f.loop(0, 4 * dim, 4 * _LANES) as i:
            f.store(f.load(vector, x, i) * f.load(vector, before, i), x, i)


def segment_of(k: Kernel, segment: Value) -> tuple[Value, Value, Value, Value, Value, Value]:
    """Return a segment's first row and the row after its last, the addresses of the states it reads and writes, and how
    many rows are pending in the first and drafted among its own.
    """
    f = k.f
    first, last = (f.load(i32, k("starts", pointer), segment * 4 + 4 * i).to(i64) for i in (0, 1))
    of, to, pending, drafted = (f.load(i32, k("states", pointer), segment * 16 + 4 * i).to(i64) for i in range(4))
    old, new = (k("memory", pointer) + state * k("state_bytes") for state in (of, to))
    return first, last, old, new, pending, drafted


def _normalise(k: Kernel, x: Value, dim: int) -> None:
    f = k.f
    total = f.variable(f32 * _LANES, 0)
    with f.loop(0, 4 * dim, 4 * _LANES) as i:
        v = f.load(f32 * _LANES, x, i)
        total.set(fma(v, v, total.get()))
    length = f.call("llvm.sqrt.f32", f32, sum_lanes(total.get()) + f.load(f32, k("epsilon", pointer)))
    factor = (1.0 / length).splat(_LANES)
    with f.loop(0, 4 * dim, 4 * _LANES) as i:
        f.store(f.load(f32 * _LANES, x, i) * factor, x, i)
