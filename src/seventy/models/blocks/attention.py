"""Grouped-query attention with rotary positions (Ainslie et al. 2023; Su et al. 2021)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seventy.graph.buffers import Buffer
from seventy.graph.products import Activation
from seventy.graph.program import Program, RotaryTables
from seventy.graph.weights import Matrix, Weights
from seventy.models.blocks.config import Config, Shape, Temperature
from seventy.models.blocks.rotary import Rotary


def attention(graph: Program, c: Config, w: Weights, layer: int, tables: RotaryTables, x: Buffer) -> None:
    """Compute x += attention of the normalised x; products have a bias and heads a sink if the file has them.

    Gated attention is multiplied by the sigmoid of a further product before its last one. A layer without keys and
    values of its own attends to those of another.
    """
    block, source, head_dim = c.block(layer), c.kv_layer(layer), c.shapes[layer].head_dim
    attended = graph.buffer(c.heads * head_dim)
    gate = graph.buffer(attended.columns) if c.gated else None
    h = graph.norm(x, w.vector(block + "attn_norm.weight", c.hidden))
    if source == layer and not c.attends:
        queries = _queries_and_store(graph, c, w, layer, tables, h, gate)
    else:
        queries = _queries(graph, c, w, layer, tables, h)
    sinks = w.optional_vector(block + "attn_sinks.weight", c.heads)
    scale = head_dim**-0.5 if c.attention_scale is None else c.attention_scale
    scales = _scales(scale, c.temperature, graph.context)
    graph.attention(queries, attended, source, *scales, sinks, before=bool(c.attends))
    output = w.matrix(block + "attn_output.weight", c.hidden, attended.columns)
    bias = w.optional_vector(block + "attn_output.bias", c.hidden)
    gated = graph.gated(gate, attended, "sigmoid") if gate else graph.plain(attended)
    if c.post_norms:
        product = graph.buffer(c.hidden)
        graph.matmul(gated, output, product, bias)
        graph.add_normalised(product, w.vector(block + "post_attention_norm.weight", c.hidden), x)
    else:
        graph.matmul(gated, output, x, bias, add=True)


def _queries_and_store(
    graph: Program, c: Config, w: Weights, layer: int, tables: RotaryTables, h: Activation, gate: Buffer | None
) -> Buffer:
    """Return the turned queries; keys and values go into the layer's cache. Fill the `gate` where there is one."""
    block, shape = c.block(layer), c.shapes[layer]
    q, kv = c.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    queries, keys, values = (graph.buffer(columns) for columns in (q, kv, kv))
    if gate:
        for target, matrix in zip((queries, gate, keys, values), _gated_projections(w, block, c, shape), strict=True):
            graph.matmul(h, matrix, target)
    else:
        names = "qkv"
        if c.value_norm and not w.has(block + "attn_v.weight") and not w.has(block + "attn_qkv.weight"):
            names, values = "qk", keys
        rows, into = ((q, kv, kv)[: len(names)], (queries, keys, values)[: len(names)])
        for target, matrix, bias in zip(into, *_projections(w, block, names, rows, c.hidden), strict=True):
            graph.matmul(h, matrix, target, bias)
    norms = None
    if c.query_norm == "row":
        queries, keys = (
            graph.normalised(rows, w.vector(f"{block}attn_{name}_norm.weight", rows.columns))
            for name, rows in (("q", queries), ("k", keys))
        )
    elif c.query_norm == "head" or (c.query_norm == "head if present" and w.has(block + "attn_q_norm.weight")):
        query_norm, key_norm = (w.vector(f"{block}attn_{name}_norm.weight", shape.head_dim) for name in ("q", "k"))
        norms = query_norm, key_norm
    graph.rotate_and_store(queries, keys, values, layer, tables, norms, c.value_norm)
    return queries


def _queries(graph: Program, c: Config, w: Weights, layer: int, tables: RotaryTables, h: Activation) -> Buffer:
    """Return the turned queries of a layer that has no keys and values of its own."""
    block, shape = c.block(layer), c.shapes[layer]
    assert c.query_norm == "head", c.query_norm
    rows = [c.heads * shape.head_dim, *[shape.kv_heads * shape.head_dim] * 2]
    queries = graph.buffer(rows[0])
    # Of a tensor that holds all three, keys and values have no use.
    names = "qkv" if w.has(block + "attn_qkv.weight") else "q"
    matrices, biases = _projections(w, block, names, rows[: len(names)], c.hidden)
    graph.matmul(h, matrices[0], queries, biases[0])
    norm = w.vector(block + "attn_q_norm.weight", shape.head_dim)
    graph.rotate(queries, c.kv_layer(layer), tables, norm, before=bool(c.attends))
    return queries


def _scales(scale: float, temperature: Temperature | None, context: int) -> tuple[NDArray[np.float32], int]:
    """What scores are multiplied by, for so many positions each."""
    if temperature is None:
        return np.array([scale], np.float32), context
    steps = np.log1p(np.arange(-(-context // temperature.length)))
    return (scale * (1 + temperature.scale * steps)).astype(np.float32), temperature.length


def _projections(
    w: Weights, block: str, names: str, rows: Sequence[int], hidden: int
) -> tuple[Sequence[Matrix], Sequence[NDArray[np.float32] | None]]:
    """The matrices and biases of queries, keys and values, of tensors of their own or of one that holds all three."""
    if not w.has(block + "attn_qkv.weight"):
        tensors = [(f"{block}attn_{name}", n) for name, n in zip(names, rows, strict=True)]
        return (
            [w.matrix(f"{tensor}.weight", n, hidden) for tensor, n in tensors],
            [w.optional_vector(f"{tensor}.bias", n) for tensor, n in tensors],
        )
    bias = w.optional_vector(block + "attn_qkv.bias", sum(rows))
    parts = [None] * len(rows) if bias is None else np.split(bias, np.cumsum(rows[:-1]))
    return w.stacked(block + "attn_qkv.weight", rows, hidden), parts


def _gated_projections(w: Weights, block: str, c: Config, shape: Shape) -> Sequence[Matrix]:
    """The matrices of queries, their gate, keys and values; a head's rows of the gate follow those of its query."""
    q, kv = c.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    by_head = np.arange(2 * q).reshape(c.heads, 2, shape.head_dim)
    order = [by_head[:, part].reshape(-1) for part in range(2)]
    if w.has(block + "attn_qkv.weight"):
        order += [np.arange(first, first + kv) for first in (2 * q, 2 * q + kv)]
        return w.picked(block + "attn_qkv.weight", order, c.hidden)
    keys_and_values = [w.matrix(f"{block}attn_{name}.weight", kv, c.hidden) for name in "kv"]
    return *w.picked(block + "attn_q.weight", order, c.hidden), *keys_and_values


def rotary_tables(graph: Program, c: Config, w: Weights) -> list[RotaryTables]:
    """Return the rotary tables of each layer; layers with the same settings share them."""
    tables: dict[Rotary, RotaryTables] = {}
    for shape in c.shapes:
        if shape.rotary not in tables:
            # The file's divisors are not for layers with windows that turn heads in a way of their own.
            factors = None if shape.rotary.of_window else _rotary_factors(shape.rotary, w, graph.context, c.prefix)
            tables[shape.rotary] = shape.rotary.tables(graph.context, factors, first=int(bool(c.attends)))
    return [tables[shape.rotary] for shape in c.shapes]


def _rotary_factors(rotary: Rotary, w: Weights, positions: int, prefix: str) -> NDArray[np.float32] | None:
    """Divisors of the rotary frequencies: Llama 3's, or longrope's for short or for long contexts."""
    length = rotary.dim // 2
    factors = w.optional_vector(f"{prefix}rope_freqs.weight", length)
    # Phi's files have longrope's and do not name it.
    if rotary.scaling == "longrope" or w.has(f"{prefix}rope_factors_long.weight"):
        kinds = [w.vector(f"{prefix}rope_factors_{kind}.weight", length) for kind in ("short", "long")]
        factors = kinds[positions > rotary.original] if factors is None else factors
    return None if factors is None else factors[:length]
