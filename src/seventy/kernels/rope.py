"""Rotary position embedding of queries and keys, and the way of keys and values into the cache."""

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import fma
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import inverse_rms
from seventy.kernels.pages import PAGE, Layout

# A position is STEP * coarse + fine.
STEP = 256

ARGUMENTS = (
    "rows", "positions", "segments", "tables", "table_stride", "coarse", "fine", "queries", "query_stride", "keys",
    "key_stride", "values", "value_stride", "cache", "n_pages", "query_norm", "key_norm", "epsilon",
)  # fmt: skip


def build(
    module: Module,
    kv_heads: int,
    group: int,
    head_dim: int,
    rope_dim: int,
    interleaved: bool,
    norm: bool,
    kv: str,
    norm_values: bool = False,
    store: bool = True,
) -> None:
    """Build the kernel that rotates queries and keys by their positions and stores keys and values in the cache.

    It works on `group` queries and one key per KV head. Without `store` there are queries only.

    The angle of a position is the sum of a coarse and a fine one, so that two small tables serve any context: row i of
    `coarse` holds the cosines and then the sines (rope_dim / 2 each) of position STEP * i, row i of `fine` those of
    position i. Element i is paired with its neighbour (interleaved, Llama) or with i + rope_dim / 2 (Qwen and others).
    With `norm`, each head is first divided by its root mean square and multiplied by `query_norm` or `key_norm`; with
    `norm_values`, a stored value is divided by its root mean square. `values` may be the same as `keys`. If the cache
    stores bytes, queries and keys are finally multiplied by a Hadamard matrix: their products stay the same, and the
    few large elements in some models' keys no longer reduce the precision of their neighbours (QuaRot, Ashkboos et al.
    2024).
    """
    layout = Layout(kv, head_dim, head_dim)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    cosines, sines = f.memory(2 * rope_dim), f.memory(2 * rope_dim)
    normed = f.memory(4 * head_dim) if norm_values else None
    rows = k.count("rows")

    def turn(row: Value, head: Value) -> None:
        position = row_angles(k, row, cosines, sines, rope_dim)
        queries = k("queries", pointer) + row * k("query_stride") + head * (4 * group * head_dim)
        with f.loop(group) as g:
            if norm:
                normalise(k, queries + g * (4 * head_dim), k("query_norm", pointer), head_dim)
            rotate(f, queries + g * (4 * head_dim), cosines, sines, rope_dim, interleaved)
            if layout.spread:
                _hadamard(f, queries + g * (4 * head_dim), head_dim, layout.spread)
        if store:
            store_turned(row, head, position)

    def store_turned(row: Value, head: Value, position: Value) -> None:
        keys = k("keys", pointer) + row * k("key_stride") + head * (4 * head_dim)
        values = k("values", pointer) + row * k("value_stride") + head * (4 * head_dim)
        if normed is not None:
            # Before the key changes, which may be the value, too.
            normalise(k, values, None, head_dim, normed)
            values = normed
        if norm:
            normalise(k, keys, k("key_norm", pointer), head_dim)
        rotate(f, keys, cosines, sines, rope_dim, interleaved)
        if layout.spread:
            _hadamard(f, keys, head_dim, layout.spread)
        segment = f.load(i32, k("segments", pointer), row * 4).to(i64)
        table = k("tables", pointer) + segment * k("table_stride")
        number = f.load(i32, table, position // PAGE * 4).to(i64)
        page = layout.page(k("cache", pointer), k("n_pages"), head, number)
        layout.store(f, page, position % PAGE, keys, values)

    # Keys of neighbours lie side by side in a cache line: many rows are claimed by half a page.
    some = (rows > PAGE).select(f.constant(i64, PAGE // 2), 1)
    with k.claim((rows + some - 1) // some * kv_heads) as item:
        first, head = item // kv_heads * some, item % kv_heads
        with f.loop(first, (first + some).minimum(rows)) as row:
            turn(row, head)


def _lanes(span: int) -> int:
    return next(n for n in (16, 8, 4, 2, 1) if span % n == 0)


def row_angles(k: Kernel, row: Value, cosines: Value, sines: Value, rope_dim: int) -> Value:
    """Write the cosines and sines of a row's angles, rope_dim / 2 each; return the row's position."""
    f, half = k.f, rope_dim // 2
    position = f.load(i32, k("positions", pointer), row * 4).to(i64)
    coarse = k("coarse", pointer) + position // STEP * (4 * rope_dim)
    fine = k("fine", pointer) + position % STEP * (4 * rope_dim)
    vector = f32 * _lanes(half)
    with f.loop(0, 4 * half, vector.nbytes) as i:
        c, s = f.load(vector, coarse, i), f.load(vector, coarse, i + 4 * half)
        c1, s1 = f.load(vector, fine, i), f.load(vector, fine, i + 4 * half)
        f.store(fma(-s, s1, c * c1), cosines, i)
        f.store(fma(c, s1, s * c1), sines, i)
    return position


def normalise(k: Kernel, x: Value, weight: Value | None, head_dim: int, into: Value | None = None) -> None:
    """Apply RMSNorm to the `head_dim` floats at x, in place or into another place, with or without weights."""
    f = k.f
    factor = inverse_rms(k, x, f.constant(i64, head_dim)).splat(16)
    with f.loop(0, 4 * head_dim, 64) as i:
        normed = f.load(f32 * 16, x, i) * factor
        f.store(normed if weight is None else normed * f.load(f32 * 16, weight, i), x if into is None else into, i)


def rotate(f: Function, x: Value, cosines: Value, sines: Value, rope_dim: int, interleaved: bool) -> None:
    """Rotate the first `rope_dim` floats at x, in place."""
    half = rope_dim // 2
    lanes = _lanes(half)
    with f.loop(0, half, lanes) as i:
        c, s = f.load(f32 * lanes, cosines, i * 4), f.load(f32 * lanes, sines, i * 4)
        if interleaved:
            both = f.load(f32 * (2 * lanes), x, i * 8)
            a, b = (both.shuffle(range(first, 2 * lanes, 2)) for first in (0, 1))
        else:
            a, b = f.load(f32 * lanes, x, i * 4), f.load(f32 * lanes, x, (i + half) * 4)
        first, second = fma(-b, s, a * c), fma(b, c, a * s)
        if interleaved:
            f.store(first.shuffle([j // 2 + lanes * (j % 2) for j in range(2 * lanes)], second), x, i * 8)
        else:
            f.store(first, x, i * 4)
            f.store(second, x, (i + half) * 4)


def _hadamard(f: Function, x: Value, head_dim: int, size: int) -> None:
    """Each `size` elements of x times the Hadamard matrix of that size, divided by its norm."""
    signs = {stride: f.vector(i32 * 16, [-(1 << 31) * (j // stride % 2) for j in range(16)]) for stride in (1, 2, 4, 8)}
    with f.loop(0, 4 * head_dim, 4 * size) as start:
        vectors = [f.load(f32 * 16, x + start, 64 * i) for i in range(size // 16)]
        for stride, sign in signs.items():
            partners = [v.shuffle([j ^ stride for j in range(16)]) for v in vectors]
            vectors = [
                (v.view(i32 * 16) ^ sign).view(v.type) + partner for v, partner in zip(vectors, partners, strict=True)
            ]
        stride = 1
        while stride < len(vectors):
            vectors = [
                vectors[i ^ stride] - v if i // stride % 2 else v + vectors[i ^ stride] for i, v in enumerate(vectors)
            ]
            stride *= 2
        for i, v in enumerate(vectors):
            f.store(v * size**-0.5, x + start, 64 * i)
