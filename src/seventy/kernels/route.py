"""Which experts each row goes to, and with what weight (Shazeer et al. 2017; Fedus et al. 2021)."""

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import exp
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "scores", "score_stride", "scale", "weights", "slots", "inputs", "active", "starts", "done")
# Below every probability, so that what was chosen is not chosen again.
_CHOSEN = -1.0
_SMALLEST_SUM = 6.103515625e-5


def build(module: Module, experts: int, used: int, normalise: bool) -> None:
    """Choose for each row the `used` experts of the largest softmax over all `experts` scores, the largest first.

    `weights`, f32 [rows, used], are their probabilities, divided by their sum where `normalise` is set, times `scale`
    (f32). A slot is a row at one of its experts; slots are numbered expert by expert, in the order of the rows:

    - `slots`, i32 [rows, used], is where each row stands at its experts, in order of rank;
    - `inputs`, i32 [rows * used], is the row of each slot;
    - `active`, i32 [1 + experts], is how many experts have slots, and then which;
    - `starts`, i32 [1 + experts], is the first slot of each active expert, and at last the number of slots.

    Whatever the scores are, NaN too, every index is in range. `done` is an i64 that is 0 before and after.
    """
    k = Kernel(module, ARGUMENTS)
    f, rows = k.f, k.count("rows")
    group = _group(module, experts, used)
    probabilities = f.memory(4 * experts)
    with k.claim(rows) as row:
        scores = k("scores", pointer) + row * k("score_stride")
        weights = k("weights", pointer) + row * (4 * used)
        chosen = k("slots", pointer) + row * (4 * used)
        _softmax(f, scores, probabilities, experts)
        total = f.variable(f32, 0)
        with f.loop(used) as rank:
            best, index = f.variable(f32, _CHOSEN), f.variable(i64, 0)
            with f.loop(experts) as expert:
                p = f.load(f32, probabilities, expert * 4)
                larger = p > best.get()
                best.set(larger.select(p, best.get()))
                index.set(larger.select(expert, index.get()))
            # Read again: where all are NaN nothing was larger, and the weight has to say so.
            weight = f.load(f32, probabilities, index.get() * 4)
            f.store(f.constant(f32, _CHOSEN), probabilities, index.get() * 4)
            f.store(weight, weights, rank * 4)
            f.store(index.get().to(i32), chosen, rank * 4)
            total.set(total.get() + weight)
        factor = f.load(f32, k("scale", pointer))
        if normalise:
            factor = factor / total.get().maximum(_SMALLEST_SUM)
        with f.loop(used) as rank:
            f.store(f.load(f32, weights, rank * 4) * factor, weights, rank * 4)
        # Whoever is last of all rows numbers the slots.
        with f.when((f.atomic_add(k("done", pointer), 1) + 1).eq(rows)):
            f.atomic_store(k("done", pointer), 0)
            f.call(
                group.name, None, rows * used, k("slots", pointer), k("inputs", pointer), k("active", pointer),
                k("starts", pointer),
            )  # fmt: skip


def _softmax(f: Function, scores: Value, out: Value, experts: int) -> None:
    largest, total = f.variable(f32, -3e38), f.variable(f32, 0)
    with f.loop(0, 4 * experts, 4) as i:
        largest.set(f.load(f32, scores, i).maximum(largest.get()))
    with f.loop(0, 4 * experts, 4) as i:
        e = exp(f.load(f32, scores, i) - largest.get())
        f.store(e, out, i)
        total.set(total.get() + e)
    with f.loop(0, 4 * experts, 4) as i:
        f.store(f.load(f32, out, i) / total.get(), out, i)


def _group(module: Module, experts: int, used: int) -> Function:
    """Number the slots: counts by expert, then where each expert begins, then each row's place at its experts."""
    f = module.function("group", [i64, pointer, pointer, pointer, pointer], internal=True)
    n, slots, inputs, active, starts = f.arguments
    following = f.memory(4 * experts)
    with f.loop(0, 4 * experts, 4) as i:
        f.store(f.constant(i32, 0), following, i)
    with f.loop(0, n * 4, 4) as i:
        place = f.load(i32, slots, i).to(i64) * 4
        f.store(f.load(i32, following, place) + 1, following, place)
    count, start = f.variable(i64, 0), f.variable(i32, 0)
    with f.loop(experts) as expert:
        n_slots = f.load(i32, following, expert * 4)
        f.store(start.get(), following, expert * 4)
        with f.when(n_slots > 0):
            count.set(count.get() + 1)
            f.store(expert.to(i32), active, count.get() * 4)
            f.store(start.get(), starts, count.get() * 4 - 4)
        start.set(start.get() + n_slots)
    f.store(count.get().to(i32), active)
    f.store(start.get(), starts, count.get() * 4)
    with f.loop(n) as i:
        place = f.load(i32, slots, i * 4).to(i64) * 4
        slot = f.load(i32, following, place)
        f.store(slot + 1, following, place)
        f.store(slot, slots, i * 4)
        f.store((i // used).to(i32), inputs, slot.to(i64) * 4)
    f.ret()
    return f
