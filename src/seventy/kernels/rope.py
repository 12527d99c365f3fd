"""Rotary position embedding of queries and keys, and the way of keys and values into the cache."""

from seventy.jit.build import Function, Module, Value
from seventy.jit.simd import float_to_halves, fma
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.attention import PAGE, page_address

ARGUMENTS = (
    "rows", "positions", "tables", "cosines", "sines", "queries", "query_stride", "keys", "values", "key_stride",
    "cache", "n_pages",
)  # fmt: skip


def build(module: Module, kv_heads: int, group: int, head_dim: int, rope_dim: int, interleaved: bool) -> None:
    """Turns `group` queries and one key of every KV head by the row's position, stores key and value as f16.

    The rotation is x * cosine + partner * sine, with the sine's sign in the table (row: rope_dim floats of each);
    the partner of element i is its neighbour (interleaved, Llama) or i +- rope_dim / 2 (Qwen and others).
    """
    k = Kernel(module, ARGUMENTS)
    f = k.f
    with k.claim(k.count("rows") * kv_heads) as item:
        row, head = item // kv_heads, item % kv_heads
        position = f.load(i32, k("positions", pointer), row * 4).to(i64)
        cosines = k("cosines", pointer) + position * (4 * rope_dim)
        sines = k("sines", pointer) + position * (4 * rope_dim)
        queries = k("queries", pointer) + row * k("query_stride") + head * (4 * group * head_dim)
        keys = k("keys", pointer) + row * k("key_stride") + head * (4 * head_dim)
        values = k("values", pointer) + row * k("key_stride") + head * (4 * head_dim)
        with f.loop(group) as g:
            _rotate(f, queries + g * (4 * head_dim), cosines, sines, rope_dim, interleaved)
        _rotate(f, keys, cosines, sines, rope_dim, interleaved)

        page = f.load(i32, f.load(pointer, k("tables", pointer), row * 8), position // PAGE * 4).to(i64)
        slot = position % PAGE
        key_page = page_address(k("cache", pointer), k("n_pages"), head, page, head_dim)
        value_page = key_page + 2 * PAGE * head_dim
        with f.loop(head_dim) as i:
            half = float_to_halves(f.load(f32, keys, i * 4))
            f.store(half, key_page, (i * PAGE + slot) * 2)
        with f.loop(0, head_dim, 16) as i:
            half = float_to_halves(f.load(f32 * 16, values, i * 4))
            f.store(half, value_page, (slot * head_dim + i) * 2)


def _rotate(f: Function, x: Value, cosines: Value, sines: Value, rope_dim: int, interleaved: bool) -> None:
    half = rope_dim // 2
    span = rope_dim if interleaved else half
    lanes = next(n for n in (16, 8, 4, 2, 1) if span % n == 0)
    vector = f32 * lanes
    with f.loop(0, 4 * span, 4 * lanes) as i:
        if interleaved:
            here = f.load(vector, x, i)
            partner = here.shuffle([j ^ 1 for j in range(lanes)])
            turned = fma(partner, f.load(vector, sines, i), here * f.load(vector, cosines, i))
            f.store(turned, x, i)
        else:
            places = (i, i + 4 * half)
            first, second = (f.load(vector, x, place) for place in places)
            for place, here, partner in zip(places, (first, second), (second, first), strict=True):
                turned = fma(partner, f.load(vector, sines, place), here * f.load(vector, cosines, place))
                f.store(turned, x, place)
