"""Latent attention (MLA, DeepSeek-AI 2024): a layer remembers one short vector a position, for all heads."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from seventy.cache.spec import CacheSpec, Paged
from seventy.errors import SeventyError
from seventy.graph.buffers import Buffer
from seventy.graph.program import Program, RotaryTables
from seventy.graph.weights import Matrix, Weights
from seventy.models.blocks.config import (
    MOST_QUERY_COLUMNS,
    Config,
    Latent,
    Mixture,
    Shape,
    predicting,
    read_experts,
    refuse_not_done,
)
from seventy.models.blocks.metadata import Metadata
from seventy.models.blocks.rotary import Rotary

_LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"


def read(metadata: Mapping[str, Any], architecture: str, experts: Mixture, indexed: bool = False) -> Config:
    """Read the numbers of a model with latent attention and a mixture of experts.

    An `indexed` model attends to the keys that an indexer chooses: to all of them while there are no more than it may
    choose, so that is its context here. Raises SeventyError as config.read does.
    """
    m = Metadata(metadata, architecture)
    refuse_not_done(m, architecture, done=(_LOG_MULTIPLIER,))
    heads, blocks = m.integer("attention.head_count", 1, 4096), m.integer("block_count", 1, 1024)
    further = m.integer("nextn_predict_layers", 0, blocks - 1, default=0)
    rotary = Rotary.from_metadata(m, m.integer("rope.dimension_count", 2, 1024), interleaved=True)
    latent = _latent(m, rotary)
    if m.raw(_LOG_MULTIPLIER):
        # The scores alone are larger then: what turns is not lengthened.
        rotary = replace(rotary, lengthening=rotary.lengthening / (rotary.length / rotary.lengthening))
    mixture = read_experts(m, experts, blocks - further)
    width = m.integer("feed_forward_length", 16, 1 << 20) if mixture.first_layer else 0
    context = min(m.context(), m.integer("attention.indexer.top_k", 1, 1 << 24)) if indexed else m.context()
    config = Config(
        layers=blocks - further,
        hidden=m.integer("embedding_length", 16, 1 << 17),
        feed_forward=(width,) * (blocks - further),
        heads=heads,
        shapes=(Shape(1, latent.rank + latent.rotary, rotary),) * (blocks - further),
        vocabulary=m.vocabulary(),
        context=context,
        epsilon=m.number("attention.layer_norm_rms_epsilon"),
        query_norm="none",
        feed_forward_norm="ffn_norm",
        experts=mixture,
        further_blocks=further,
        windows=(None,) * (blocks - further),
        latent=latent,
        indexed=indexed,
    )
    parts = latent.rank, latent.rotary, latent.nope, latent.value
    if any(n % 16 or not n for n in parts) or heads * (latent.rank + latent.rotary) > MOST_QUERY_COLUMNS:
        raise SeventyError(
            "this {architecture} model has {heads} heads with latent vectors of {rank}, queries of {nope} and "
            "{rotary} that turn, and values of {value}; the engine needs multiples of 16, of {most_query_columns} "
            "numbers in all: take another model",
            architecture=architecture, heads=heads, rank=latent.rank, nope=latent.nope, rotary=latent.rotary,
            value=latent.value, most_query_columns=MOST_QUERY_COLUMNS,
        )
    return config


def _latent(m: Metadata, rotary: Rotary) -> Latent:
    # Older files give the sizes of a head under other names.
    names = [f"attention.{name}_length" for name in ("key", "value")]
    if all(m.raw(f"{name}_mla") is not None for name in names):
        names = [f"{name}_mla" for name in names]
    key, value = m.integer(names[0], rotary.dim, 1024), m.integer(names[1], 1, 1024)
    multiplier = m.number(_LOG_MULTIPLIER) / 0.1 if m.raw(_LOG_MULTIPLIER) else 1.0
    stretch = 1 + 0.1 * multiplier * math.log(max(1.0, rotary.factor))
    return Latent(
        rank=m.integer("attention.kv_lora_rank", 1, 4096),
        rotary=rotary.dim,
        nope=key - rotary.dim,
        value=value,
        query_rank=m.integer("attention.q_lora_rank", 0, 1 << 17, default=0),
        scale=stretch**2 * key**-0.5,
        temperature=m.number("attention.temperature_scale") if m.raw("attention.temperature_scale") else 0.0,
        temperature_length=m.integer("attention.temperature_length", 1, 1 << 24, default=m.context()),
    )


def caches(config: Config) -> list[CacheSpec]:
    """Return each layer's cache specification: one key per position, whose first elements are the value."""
    assert config.latent is not None
    spec = Paged(1, config.shapes[0].head_dim, config.latent.rank, values_in_keys=True)
    return [*[spec] * config.layers, *(predicting(config, spec) if config.predicts else ())]


def latent_attention(graph: Program, c: Config, w: Weights, layer: int, tables: RotaryTables, x: Buffer) -> None:
    """Compute x += attention of the normalised x, in its absorbed form.

    The matrix that expands a latent vector to a head's key is applied to the query instead, and the one that expands it
    to a value to the weighted sum of latent vectors: so all heads attend to the latent vectors themselves.
    """
    assert c.latent is not None
    block, n, key = f"blk.{layer}.", c.latent, c.shapes[layer].head_dim
    h = graph.norm(x, w.vector(block + "attn_norm.weight", c.hidden))
    keys, queries = graph.buffer(key), graph.buffer(c.heads * (n.nope + n.rotary))
    graph.matmul(h, w.matrix(block + "attn_kv_a_mqa.weight", key, c.hidden), keys)
    if n.query_rank:
        low = graph.buffer(n.query_rank)
        graph.matmul(h, w.matrix(block + "attn_q_a.weight", n.query_rank, c.hidden), low)
        low_norm = w.vector(block + "attn_q_a_norm.weight", n.query_rank)
        expand = w.matrix(block + "attn_q_b.weight", queries.columns, n.query_rank)
        graph.matmul(graph.norm(low, low_norm), expand, queries)
    else:
        graph.matmul(h, w.matrix(block + "attn_q.weight", queries.columns, c.hidden), queries)
    latent, attended = graph.buffer(c.heads * key), graph.buffer(c.heads * n.rank)
    to_latent, to_values = _expansions(w, block, c.heads, n)
    graph.store_latent(queries, keys, w.vector(block + "attn_kv_a_norm.weight", n.rank), latent, layer, tables)
    graph.multiply_heads(queries, to_latent, latent)
    steps = np.log1p(np.arange(-(-graph.context // n.temperature_length)))
    scales = (n.scale * (1 + n.temperature * steps)).astype(np.float32)
    graph.latent_attention(latent, attended, layer, scales, n.temperature_length)
    values = graph.buffer(c.heads * n.value)
    graph.multiply_heads(attended, to_values, values)
    output = w.matrix(block + "attn_output.weight", c.hidden, values.columns)
    graph.matmul(graph.plain(values), output, x, add=True)


def _expansions(w: Weights, block: str, heads: int, n: Latent) -> tuple[Matrix, ...]:
    """For each head what makes a latent vector of a query, and a value of a latent vector."""
    if w.has(block + "attn_kv_b.weight"):
        return w.split_heads(block + "attn_kv_b.weight", heads, (n.nope, n.value), n.rank)
    return (
        w.heads(block + "attn_k_b.weight", heads, n.rank, n.nope),
        w.heads(block + "attn_v_b.weight", heads, n.value, n.rank),
    )
