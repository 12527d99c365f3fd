"""What the dense families have in common: pre-norm blocks of grouped-query attention and a SwiGLU feed-forward.

RMSNorm, rotary positions, biases where the file has them (Touvron et al. 2023; Qwen2, Qwen3 technical reports). An
architecture's own file says which way its heads turn and whether they are normalised.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks.metadata import Metadata
from seventy.models.blocks.rotary import Rotary

# The queries of a step of 256 rows are then 128 MB at most.
_MOST_QUERY_COLUMNS = 1 << 17
# What some files of these families ask for and the engine does not do, and the value that asks for nothing.
_NOT_DONE = {
    "expert_count": ("a mixture of experts", 0),
    "attention.clamp_kqv": ("clamped queries, keys and values", 0),
    "attention.max_alibi_bias": ("ALiBi positions", 0),
    "attn_logit_softcapping": ("capped attention scores", 0),
    "final_logit_softcapping": ("capped logits", 0),
    "attention.scale": ("an attention scale of its own", 0),
    "logit_scale": ("scaled logits", 1),
    "embedding_scale": ("scaled embeddings", 1),
    "residual_scale": ("scaled residuals", 1),
    "rope.scaling.yarn_log_multiplier": ("YaRN with a multiplier of its own", 0),
}


@dataclass(frozen=True, slots=True)
class Config:
    """The numbers of a model, as its GGUF's metadata gives them. `head_norms`: queries and keys are normalised."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    epsilon: float
    rotary: Rotary
    head_norms: bool


def read(metadata: Mapping[str, Any], architecture: str, interleaved: bool, head_norms: bool = False) -> Config:
    """Raises SeventyError where a number is missing or cannot be, or the model needs what the engine cannot do."""
    m = Metadata(metadata, architecture)
    for key, (what, nothing) in _NOT_DONE.items():
        if (value := m.raw(key)) not in (None, nothing):
            raise SeventyError(
                f"this {architecture} model has {what} ({key} = {value!r}), which this engine does not do; "
                f"take another model"
            )
    heads, hidden = m.integer("attention.head_count", 1, 4096), m.integer("embedding_length", 16, 1 << 17)
    head_dim = m.integer("attention.key_length", 16, 1024, default=hidden // heads)
    # No context longer than the sliding window of the first Mistral, say: up to there it changes nothing.
    window = m.integer("attention.sliding_window", 0, 1 << 24, default=0)
    config = Config(
        layers=m.integer("block_count", 1, 1024),
        hidden=hidden,
        feed_forward=m.integer("feed_forward_length", 16, 1 << 20),
        heads=heads,
        kv_heads=m.integer("attention.head_count_kv", 1, 4096, default=heads),
        head_dim=head_dim,
        vocabulary=m.vocabulary(),
        context=min(m.context(), window or m.context()),
        epsilon=m.number("attention.layer_norm_rms_epsilon"),
        rotary=Rotary.from_metadata(m, head_dim, interleaved),
        head_norms=head_norms,
    )
    value_dim = m.integer("attention.value_length", 1, 1 << 17, default=head_dim)
    if heads % config.kv_heads or head_dim % 16 or value_dim != head_dim or heads * head_dim > _MOST_QUERY_COLUMNS:
        raise SeventyError(
            f"this {architecture} model has {heads} heads of {head_dim} and {config.kv_heads} of keys and values, "
            f"values of {value_dim}; the engine needs whole groups, and values like keys, of a multiple of 16: "
            f"take another model"
        )
    return config


def build(p: Program, c: Config, w: Weights, positions: int) -> None:
    """Writes the program; `positions` is the longest context it must serve."""
    tables = c.rotary.tables(positions, _rotary_factors(c, w, positions))
    kv_columns = c.kv_heads * c.head_dim
    # Named first: a file whose embedding and vocabulary disagree has nothing else to say.
    embedding = w.matrix("token_embd.weight", c.vocabulary, c.hidden)

    x = p.buffer("x", c.hidden)
    q = p.buffer("queries", c.heads * c.head_dim)
    k, v = p.buffer("keys", kv_columns), p.buffer("values", kv_columns)
    attended = p.buffer("attended", c.heads * c.head_dim)
    gate, up = p.buffer("gate", c.feed_forward), p.buffer("up", c.feed_forward)

    p.embed(embedding, x)
    for layer in range(c.layers):
        block = f"blk.{layer}."

        h = p.norm(x, w.vector(block + "attn_norm.weight", c.hidden))
        for name, into in (("attn_q", q), ("attn_k", k), ("attn_v", v)):
            bias = _optional(w, f"{block}{name}.bias", into.columns)
            p.matmul(h, w.matrix(f"{block}{name}.weight", into.columns, c.hidden), into, bias)
        norms = None
        if c.head_norms:
            query_norm, key_norm = (w.vector(f"{block}attn_{name}_norm.weight", c.head_dim) for name in ("q", "k"))
            norms = query_norm, key_norm
        p.rotate_and_store(q, k, v, layer, c.head_dim, tables, norms)
        p.attention(q, attended, layer, c.kv_heads, c.head_dim, c.head_dim**-0.5)
        p.matmul(p.plain(attended), w.matrix(block + "attn_output.weight", c.hidden, q.columns), x, add=True)

        h = p.norm(x, w.vector(block + "ffn_norm.weight", c.hidden))
        p.matmul(h, w.matrix(block + "ffn_gate.weight", c.feed_forward, c.hidden), gate)
        p.matmul(h, w.matrix(block + "ffn_up.weight", c.feed_forward, c.hidden), up)
        p.matmul(p.swiglu(gate, up), w.matrix(block + "ffn_down.weight", c.hidden, c.feed_forward), x, add=True)

    h = p.norm(x, w.vector("output_norm.weight", c.hidden), outputs_only=True)
    tied = not w.has("output.weight")
    head = embedding if tied else w.matrix("output.weight", c.vocabulary, c.hidden)
    p.matmul(h, head, p.buffer("logits", c.vocabulary, outputs=True))


def _rotary_factors(c: Config, w: Weights, positions: int) -> NDArray[np.float32] | None:
    """Divisors of the rotary frequencies: Llama 3's, or longrope's for short or for long contexts."""
    length = c.rotary.dim // 2
    factors = _optional(w, "rope_freqs.weight", length)
    if c.rotary.scaling == "longrope":
        kinds = [w.vector(f"rope_factors_{kind}.weight", length) for kind in ("short", "long")]
        factors = kinds[positions > c.rotary.original] if factors is None else factors
    return None if factors is None else factors[:length]


def _optional(w: Weights, name: str, length: int) -> NDArray[np.float32] | None:
    return w.vector(name, length) if w.has(name) else None
