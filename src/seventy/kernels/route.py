"""Which experts each row goes to, and with what weight (Shazeer et al. 2017; Fedus et al. 2021; DeepSeek-V3 2024)."""

from typing import Literal

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import exp, max_lanes, min_lanes, sum_lanes
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel

ARGUMENTS = (
    "rows", "scores", "score_stride", "bias", "scale", "weights", "slots", "inputs", "active", "starts", "done",
)  # fmt: skip
Scoring = Literal["softmax", "sigmoid", "softmax of the chosen"]
_LANES = 16
_LARGEST, _LOWEST = (1 << 31) - 1, -(1 << 31)
_SMALLEST_SUM = 6.103515625e-5


def build(
    module: Module,
    experts: int,
    used: int,
    scoring: Scoring,
    normalise: bool,
    groups: int,
    groups_used: int,
) -> None:
    """Choose for each row `used` of the `experts` experts, the best first; of equals the one of the lowest number.

    The probabilities of a row are the softmax of its scores or their sigmoids; for the softmax of the chosen, they are
    the scores themselves. Chosen are the largest sums of probability and `bias`, f32 [experts]. Of `groups` equal
    groups of neighbours only the `groups_used` best take part; a group is as good as the sum of its two best experts.

    `weights`, f32 [rows, used], are the probabilities of the chosen, without the bias; for the softmax of the chosen,
    the softmax of these; then divided by their sum where `normalise` is set, and times `scale` (f32). A slot is a row
    at one of its experts; slots are numbered expert by expert, in the order of the rows:

    - `slots`, i32 [rows, used], is where each row stands at its experts, in order of rank;
    - `inputs`, i32 [rows * used], is the row of each slot;
    - `active`, i32 [1 + experts], is how many experts have slots, and then which;
    - `starts`, i32 [1 + experts], is the first slot of each active expert, and at last the number of slots.

    Rows of `scores` and the bias are whole vectors of 16. NaN counts as the largest, so that the weights show it;
    every index is in range. `done` is an i64 that is 0 before and after.
    """
    k = Kernel(module, ARGUMENTS)
    f, rows = k.f, k.count("rows")
    number, best = _number_slots(module, experts, used), _first_of_largest(module)
    padded = -(-experts // _LANES) * _LANES
    # A vector more: groups are read in whole vectors.
    probabilities, keys = f.memory(4 * padded), f.memory(4 * (padded + _LANES))

    def take_best(keys: Value, n: int) -> tuple[Value, Value]:
        """The index of the first largest of n keys and the key, which becomes the lowest."""
        index = f.call(best.name, i64, keys, f.constant(i64, n))
        key = f.load(i32, keys, index * 4)
        f.store(f.constant(i32, _LOWEST), keys, index * 4)
        return index, key

    with k.claim(rows) as row:
        weights = k("weights", pointer) + row * (4 * used)
        chosen = k("slots", pointer) + row * (4 * used)
        _score(f, k("scores", pointer) + row * k("score_stride"), probabilities, experts, scoring)
        with f.loop(0, 4 * padded, 4 * _LANES) as i:
            wish = f.load(f32 * _LANES, probabilities, i) + f.load(f32 * _LANES, k("bias", pointer), i)
            f.store(_ordered(wish), keys, i)
        if groups > 1:
            size = experts // groups
            ranks = f.memory(-(-groups // _LANES) * 4 * _LANES)
            with f.loop(groups) as group:
                members = keys + group * (4 * size)
                (first, larger), (second, smaller) = (take_best(members, size) for _ in range(2))
                f.store(larger, members, first * 4)
                f.store(smaller, members, second * 4)
                f.store(_ordered(_number(larger) + _number(smaller)), ranks, group * 4)
            with f.loop(groups_used):
                take_best(ranks, groups)
            # A group that was not taken still has its rank, and leaves.
            with (
                f.loop(groups) as group,
                f.when(f.load(i32, ranks, group * 4) > _LOWEST),
                f.loop(group * size, (group + 1) * size) as expert,
            ):
                f.store(f.constant(i32, _LOWEST), keys, expert * 4)
        with f.loop(used) as rank:
            index, _ = take_best(keys, experts)
            f.store(index.to(i32), chosen, rank * 4)
            f.store(f.load(f32, probabilities, index * 4), weights, rank * 4)
        if scoring == "softmax of the chosen":
            largest = f.variable(f32, -3e38)
            with f.loop(0, 4 * used, 4) as i:
                largest.set(f.load(f32, weights, i).maximum(largest.get()))
            with f.loop(0, 4 * used, 4) as i:
                f.store(exp(f.load(f32, weights, i) - largest.get()), weights, i)
        factor = f.load(f32, k("scale", pointer))
        if normalise or scoring == "softmax of the chosen":
            total = f.variable(f32, 0)
            with f.loop(0, 4 * used, 4) as i:
                total.set(total.get() + f.load(f32, weights, i))
            factor = factor / total.get().maximum(_SMALLEST_SUM)
        with f.loop(0, 4 * used, 4) as i:
            f.store(f.load(f32, weights, i) * factor, weights, i)
        # Whoever is last of all rows numbers the slots.
        with f.when((f.atomic_add(k("done", pointer), 1) + 1).eq(rows)):
            f.atomic_store(k("done", pointer), 0)
            f.call(
                number.name, None, rows * used, k("slots", pointer), k("inputs", pointer), k("active", pointer),
                k("starts", pointer),
            )  # fmt: skip


def _score(f: Function, scores: Value, out: Value, experts: int, scoring: Scoring) -> None:
    """The probabilities of a row's scores, in whole vectors; what stands past the last expert is never looked at."""
    vectors = -(-experts // _LANES)

    def read(i: Value) -> Value:
        x = f.load(f32 * _LANES, scores, i * (4 * _LANES))
        return x if experts % _LANES == 0 else (_ramp(f, i) < experts).select(x, float("-inf"))

    if scoring != "softmax":
        with f.loop(vectors) as i:
            x = read(i)
            f.store(1.0 / (exp(-x) + 1.0) if scoring == "sigmoid" else x, out, i * (4 * _LANES))
        return
    largest, total = f.variable(f32 * _LANES, -3e38), f.variable(f32 * _LANES, 0)
    with f.loop(vectors) as i:
        largest.set(read(i).maximum(largest.get()))
    top = max_lanes(largest.get()).splat(_LANES)
    with f.loop(vectors) as i:
        e = exp(read(i) - top)
        f.store(e, out, i * (4 * _LANES))
        total.set(total.get() + e)
    inverse = (1.0 / sum_lanes(total.get())).splat(_LANES)
    with f.loop(0, vectors * 4 * _LANES, 4 * _LANES) as i:
        f.store(f.load(f32 * _LANES, out, i) * inverse, out, i)


def _ordered(number: Value) -> Value:
    """Integers in the order of the floats, NaN above all of them and none as low as _LOWEST."""
    # A zero has two signs; added to 0 it has one.
    number = number + 0.0
    bits = number.view(i32 * number.type.lanes if number.type.lanes else i32)
    return (number >= number).select(bits ^ ((bits >> 31) & _LARGEST), _LARGEST)


def _number(key: Value) -> Value:
    """The float that `_ordered` made a key of."""
    return (key ^ ((key >> 31) & _LARGEST)).view(f32)


def _ramp(f: Function, vector: Value) -> Value:
    """The index of each lane of the vector-th vector."""
    return f.vector(i32 * _LANES, range(_LANES)) + (vector * _LANES).to(i32).splat(_LANES)


def _first_of_largest(module: Module) -> Function:
    """i64 first_of_largest(keys i32[n], n): the index of the largest, the first of equals; reads whole vectors."""
    f = module.function("first_of_largest", [pointer, i64], i64, internal=True)
    keys, n = f.arguments
    best, where = f.variable(i32 * _LANES, _LOWEST), f.variable(i32 * _LANES, 0)
    last = n.to(i32).splat(_LANES)
    with f.loop((n + (_LANES - 1)) // _LANES) as i:
        at = _ramp(f, i)
        key = (at < last).select(f.load(i32 * _LANES, keys, i * (4 * _LANES)), _LOWEST)
        larger = key > best.get()
        where.set(larger.select(at, where.get()))
        best.set(larger.select(key, best.get()))
    top = max_lanes(best.get()).splat(_LANES)
    f.ret(min_lanes(best.get().eq(top).select(where.get(), _LARGEST)).to(i64))
    return f


def _number_slots(module: Module, experts: int, used: int) -> Function:
    """Number the slots: counts by expert, then where each expert begins, then each row's place at its experts."""
    f = module.function("number_slots", [i64, pointer, pointer, pointer, pointer], internal=True)
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
