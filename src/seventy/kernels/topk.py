"""The largest of many logits, in order; of equals the first."""

from seventy.jit.build import Function, Module, Value, Variable
from seventy.jit.simd import max_lanes
from seventy.jit.types import f32, i32, i64, pointer

CHUNK = 256
_LANES = 16
_LOWEST = float("-inf")


def build(module: Module) -> None:
    """Build a kernel that finds the k largest logits, and returns how many there are.

        i64 kernel(logits f32[n], n, k, values f32[k], indices i32[k], scratch f32[n / 256 + 1])

    It returns fewer than k if only that many are above -infinity (NaN counts as none). The logits are unchanged when it
    returns. The maximum of each chunk is kept, so that each of the k takes one look at the maxima and one at a chunk.
    """
    first_max, maximum = _first_max(module), _maximum(module)
    f = module.function("kernel", [pointer, i64, i64, pointer, pointer, pointer], i64)
    logits, n, k, values, indices, maxima = f.arguments
    place = f.memory(8, 8)
    chunks = (n + (CHUNK - 1)) // CHUNK

    def look(address: Value, length: Value) -> Value:
        return f.call(first_max.name, f32, address, length, place)

    def chunk_maximum(chunk: Value) -> Value:
        length = (n - chunk * CHUNK).minimum(CHUNK)
        return f.call(maximum.name, f32, logits + chunk * (4 * CHUNK), length)

    with f.loop(chunks) as chunk:
        f.store(chunk_maximum(chunk), maxima, chunk * 4)
    found = f.variable(i64, 0)
    with f.forever() as loop:
        loop.leave_if(found.get() >= k)
        best = look(maxima, chunks)
        loop.leave_if((best > _LOWEST).eq(0))
        chunk = f.load(i64, place)
        look(logits + chunk * (4 * CHUNK), (n - chunk * CHUNK).minimum(CHUNK))
        index = chunk * CHUNK + f.load(i64, place)
        f.store(best, values, found.get() * 4)
        f.store(index.to(i32), indices, found.get() * 4)
        f.store(f.constant(f32, _LOWEST), logits, index * 4)
        f.store(chunk_maximum(chunk), maxima, chunk * 4)
        found.set(found.get() + 1)
    with f.loop(found.get()) as i:
        f.store(f.load(f32, values, i * 4), logits + f.load(i32, indices, i * 4).to(i64) * 4)
    f.ret(found.get())


def _maximum(module: Module) -> Function:
    """f32 maximum(x f32[n], n): the largest."""
    f = module.function("maximum", [pointer, i64], f32, internal=True)
    x, n = f.arguments
    best = [f.variable(f32 * _LANES, _LOWEST) for _ in range(4)]
    many, whole = (n // size * size for size in (len(best) * _LANES, _LANES))

    def meet(variable: Variable, value: Value) -> None:
        # Not maximum(): NaN counts as none.
        variable.set((value > variable.get()).select(value, variable.get()))

    with f.loop(0, many, len(best) * _LANES) as i:
        for j, variable in enumerate(best):
            meet(variable, f.load(f32 * _LANES, x, i * 4 + 4 * _LANES * j))
    with f.loop(many, whole, _LANES) as i:
        meet(best[0], f.load(f32 * _LANES, x, i * 4))
    for variable in best[1:]:
        meet(best[0], variable.get())
    top = f.variable(f32, max_lanes(best[0].get()))
    with f.loop(whole, n) as i:
        meet(top, f.load(f32, x, i * 4))
    f.ret(top.get())
    return f


def _first_max(module: Module) -> Function:
    """f32 first_max(x f32[n], n, index i64[1]): the largest and where it first stands."""
    f = module.function("first_max", [pointer, i64, pointer], f32, internal=True)
    x, n, place = f.arguments
    best = f.variable(f32 * _LANES, _LOWEST)
    where = f.variable(i32 * _LANES, 0)
    ramp = f.constant(i32 * _LANES, 0)
    for lane in range(_LANES):
        ramp = ramp.with_lane(lane, f.constant(i32, lane))
    whole = n // _LANES * _LANES
    with f.loop(0, whole, _LANES) as i:
        value = f.load(f32 * _LANES, x, i * 4)
        larger = value > best.get()
        where.set(larger.select(ramp + i.to(i32).splat(_LANES), where.get()))
        best.set(larger.select(value, best.get()))
    top, index = f.variable(f32, _LOWEST), f.variable(i64, 0)
    for lane in range(_LANES):
        value, at = best.get().lane(lane), where.get().lane(lane).to(i64)
        ahead = (value > top.get()) | ((value >= top.get()) & (at < index.get()))
        index.set(ahead.select(at, index.get()))
        top.set(ahead.select(value, top.get()))
    with f.loop(whole, n) as i:
        value = f.load(f32, x, i * 4)
        ahead = value > top.get()
        index.set(ahead.select(i, index.get()))
        top.set(ahead.select(value, top.get()))
    f.store(index.get(), place)
    f.ret(top.get())
    return f
