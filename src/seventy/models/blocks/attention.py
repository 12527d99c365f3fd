"""Grouped-query attention with rotary positions (Ainslie et al. 2023; Su et al. 2021)."""

import numpy as np
from numpy.typing import NDArray

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program, RotaryTables
from seventy.graph.weights import Weights
from seventy.models.blocks.config import Config


def attention(graph: Program, c: Config, w: Weights, layer: int, tables: RotaryTables, x: Buffer) -> None:
    """x += attention of the normalised x; queries, keys and values have biases where the file has them."""
    block = f"blk.{layer}."
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    queries, keys, values, attended = (graph.buffer(columns) for columns in (q, kv, kv, q))
    h = graph.norm(x, w.vector(block + "attn_norm.weight", c.hidden))
    for name, into in (("attn_q", queries), ("attn_k", keys), ("attn_v", values)):
        bias = w.optional_vector(f"{block}{name}.bias", into.columns)
        graph.matmul(h, w.matrix(f"{block}{name}.weight", into.columns, c.hidden), into, bias)
    norms = None
    if c.head_norms:
        query_norm, key_norm = (w.vector(f"{block}attn_{name}_norm.weight", c.head_dim) for name in ("q", "k"))
        norms = query_norm, key_norm
    graph.rotate_and_store(queries, keys, values, layer, tables, norms)
    graph.attention(queries, attended, layer, c.head_dim**-0.5)
    graph.matmul(graph.plain(attended), w.matrix(block + "attn_output.weight", c.hidden, q), x, add=True)


def rotary_tables(graph: Program, c: Config, w: Weights) -> RotaryTables:
    """Return the angles of every position of the context."""
    return c.rotary.tables(graph.context, _rotary_factors(c, w, graph.context))


def _rotary_factors(c: Config, w: Weights, positions: int) -> NDArray[np.float32] | None:
    """Divisors of the rotary frequencies: Llama 3's, or longrope's for short or for long contexts."""
    length = c.rotary.dim // 2
    factors = w.optional_vector("rope_freqs.weight", length)
    if c.rotary.scaling == "longrope":
        kinds = [w.vector(f"rope_factors_{kind}.weight", length) for kind in ("short", "long")]
        factors = kinds[positions > c.rotary.original] if factors is None else factors
    return None if factors is None else factors[:length]
