"""The way of latent keys into the cache, and of the queries' rotary parts to those that meet them there."""

from seventy.jit.build import Module, Value
from seventy.jit.types import f32, i32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.pages import PAGE, LatentLayout
from seventy.kernels.rope import normalise, rotate, row_angles

ARGUMENTS = (
    "rows", "positions", "segments", "tables", "table_stride", "coarse", "fine", "queries", "query_stride", "keys",
    "key_stride", "norm", "epsilon", "latent", "latent_stride", "cache",
)  # fmt: skip
_LANES = 16


def build(module: Module, heads: int, rank: int, nope: int, rope_dim: int, kv: str) -> None:
    """Build the kernel that normalises, rotates and stores one latent key per row, and rotates the queries' rotary
    parts.

    A key is `rank` floats, of which RMSNorm with the weights `norm` makes the latent vector, and `rope_dim` floats that
    are rotated in neighbouring pairs by angles as in kernels/rope.py. A query is `nope` and then `rope_dim` floats per
    head; the latter are rotated and written to `latent`, rank + rope_dim floats a head, after the first `rank`.
    """
    layout = LatentLayout(kv, rank + rope_dim)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    cosines, sines, key = f.memory(2 * rope_dim), f.memory(2 * rope_dim), f.memory(4 * (rank + rope_dim))

    def copy(source: Value, target: Value, floats: int) -> None:
        with f.loop(0, 4 * floats, 4 * _LANES) as i:
            f.store(f.load(f32 * _LANES, source, i), target, i)

    with k.claim(k.count("rows")) as row:
        position = row_angles(k, row, cosines, sines, rope_dim)
        copy(k("keys", pointer) + row * k("key_stride"), key, rank + rope_dim)
        normalise(k, key, k("norm", pointer), rank)
        rotate(f, key + 4 * rank, cosines, sines, rope_dim, interleaved=True)
        segment = f.load(i32, k("segments", pointer), row * 4).to(i64)
        table = k("tables", pointer) + segment * k("table_stride")
        page = layout.page(k("cache", pointer), f.load(i32, table, position // PAGE * 4).to(i64))
        layout.store(f, page, position % PAGE, key)
        query = k("queries", pointer) + row * k("query_stride") + 4 * nope
        latent = k("latent", pointer) + row * k("latent_stride") + 4 * rank
        with f.loop(heads) as head:
            turned = latent + head * (4 * (rank + rope_dim))
            copy(query + head * (4 * (nope + rope_dim)), turned, rope_dim)
            rotate(f, turned, cosines, sines, rope_dim, interleaved=True)
