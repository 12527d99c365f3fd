"""Grouped-query attention with rotary positions (Ainslie et al. 2023; Su et al. 2021)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program, RotaryTables
from seventy.graph.weights import Matrix, Weights
from seventy.models.blocks.config import Config


def attention(graph: Program, c: Config, w: Weights, layer: int, tables: RotaryTables, x: Buffer) -> None:
    """x += attention of the normalised x; every product has a bias and every head a sink where the file has them.

    Gated attention is multiplied by the sigmoid of one more product before its last one.
    """
    block = f"blk.{layer}."
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    queries, keys, values, attended = (graph.buffer(columns) for columns in (q, kv, kv, q))
    gate = graph.buffer(q) if c.gated else None
    h = graph.norm(x, w.vector(block + "attn_norm.weight", c.hidden))
    if gate:
        for into, matrix in zip((queries, gate, keys, values), _gated_projections(w, block, c), strict=True):
            graph.matmul(h, matrix, into)
    else:
        projections = _projections(w, block, (q, kv, kv), c.hidden)
        for into, matrix, bias in zip((queries, keys, values), *projections, strict=True):
            graph.matmul(h, matrix, into, bias)
    norms = None
    if c.query_norm == "row":
        queries, keys = (
            graph.normalised(rows, w.vector(f"{block}attn_{name}_norm.weight", rows.columns))
            for name, rows in (("q", queries), ("k", keys))
        )
    elif c.query_norm == "head" or (c.query_norm == "head if present" and w.has(block + "attn_q_norm.weight")):
        query_norm, key_norm = (w.vector(f"{block}attn_{name}_norm.weight", c.head_dim) for name in ("q", "k"))
        norms = query_norm, key_norm
    graph.rotate_and_store(queries, keys, values, layer, tables, norms)
    sinks = w.optional_vector(block + "attn_sinks.weight", c.heads)
    graph.attention(queries, attended, layer, c.head_dim**-0.5, sinks)
    output = w.matrix(block + "attn_output.weight", c.hidden, q)
    bias = w.optional_vector(block + "attn_output.bias", c.hidden)
    gated = graph.gated(gate, attended, "sigmoid") if gate else graph.plain(attended)
    graph.matmul(gated, output, x, bias, add=True)


def _projections(
    w: Weights, block: str, rows: Sequence[int], hidden: int
) -> tuple[Sequence[Matrix], Sequence[NDArray[np.float32] | None]]:
    """The matrices and biases of queries, keys and values, of tensors of their own or of one that holds all three."""
    if not w.has(block + "attn_qkv.weight"):
        names = [f"{block}attn_{name}" for name in "qkv"]
        return (
            [w.matrix(f"{name}.weight", n, hidden) for name, n in zip(names, rows, strict=True)],
            [w.optional_vector(f"{name}.bias", n) for name, n in zip(names, rows, strict=True)],
        )
    bias = w.optional_vector(block + "attn_qkv.bias", sum(rows))
    parts = [None] * len(rows) if bias is None else np.split(bias, np.cumsum(rows[:-1]))
    return w.stacked(block + "attn_qkv.weight", rows, hidden), parts


def _gated_projections(w: Weights, block: str, c: Config) -> Sequence[Matrix]:
    """The matrices of queries, their gate, keys and values; a head's rows of the gate follow those of its query."""
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    by_head = np.arange(2 * q).reshape(c.heads, 2, c.head_dim)
    order = [by_head[:, part].reshape(-1) for part in range(2)]
    if w.has(block + "attn_qkv.weight"):
        order += [np.arange(first, first + kv) for first in (2 * q, 2 * q + kv)]
        return w.picked(block + "attn_qkv.weight", order, c.hidden)
    keys_and_values = [w.matrix(f"{block}attn_{name}.weight", kv, c.hidden) for name in "kv"]
    return *w.picked(block + "attn_q.weight", order, c.hidden), *keys_and_values


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
