"""How much of a distribution lies above some logits: sums of exponentials, without an order of them."""

from seventy.jit.build import Module, Value, Variable
from seventy.jit.simd import exp_of_negative, sum_lanes
from seventy.jit.types import f32, i64, pointer

# A sum of floats holds so many of them, so that what is small is not lost beside what is large.
CHUNK = 4096
_LANES, _TOGETHER = 16, 4


def build(module: Module, thresholds: int) -> None:
    """Build a kernel that sums e**x over logits above thresholds.

        void kernel(logits f32[n], n, numbers f32[2 + thresholds], sums f32[ceil(n / 4096), thresholds])

    sums[chunk, t] is the sum over the chunk's logits that are at least numbers[2 + t] of e**((logit - numbers[0]) *
    numbers[1]). numbers[0] is the largest logit and numbers[1] is not negative; NaN counts as nothing.
    """
    f = module.function("kernel", [pointer, i64, pointer, pointer])
    logits, n, numbers, sums = f.arguments
    largest, scale, *bounds = (f.load(f32, numbers, 4 * i).splat(_LANES) for i in range(2 + thresholds))
    totals = [f.variable(f32 * _LANES, 0) for _ in bounds]
    with f.loop((n + (CHUNK - 1)) // CHUNK) as chunk:
        for total in totals:
            total.set(0)
        first = chunk * CHUNK
        last = (first + CHUNK).minimum(n)
        # Some vectors side by side: one waits for its exponentials longer than it computes them.
        many, whole = (first + (last - first) // n * n for n in (_TOGETHER * _LANES, _LANES))
        with f.loop(first, many, _TOGETHER * _LANES) as i:
            vectors = [f.load(f32 * _LANES, logits, i * 4 + 4 * _LANES * j) for j in range(_TOGETHER)]
            _add(vectors, largest, scale, bounds, totals)
        with f.loop(many, whole, _LANES) as i:
            _add([f.load(f32 * _LANES, logits, i * 4)], largest, scale, bounds, totals)
        with f.when(whole < last):
            # The last vector's other lanes are as if nothing stood there.
            rest = f.memory(4 * _LANES)
            f.store(f.constant(f32 * _LANES, float("-inf")), rest)
            with f.loop(whole, last) as i:
                f.store(f.load(f32, logits, i * 4), rest, (i - whole) * 4)
            _add([f.load(f32 * _LANES, rest)], largest, scale, bounds, totals)
        for t, total in enumerate(totals):
            f.store(sum_lanes(total.get()), sums + chunk * (4 * thresholds), 4 * t)


def _add(vectors: list[Value], largest: Value, scale: Value, bounds: list[Value], totals: list[Variable]) -> None:
    weights = [exp_of_negative((x - largest) * scale) for x in vectors]
    for bound, total in zip(bounds, totals, strict=True):
        parts = [(x >= bound).select(weight, 0.0) for x, weight in zip(vectors, weights, strict=True)]
        total.set(total.get() + sum(parts[1:], parts[0]))
