"""The llama architecture: Llama 1 to 3.x, Mistral, SmolLM, R1-Distill-Llama and others that declare it.

Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU feed-forward (Touvron et al. 2023).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seventy.engine.program import Program
from seventy.engine.weights import Weights
from seventy.errors import SeventyError
from seventy.models.metadata import Metadata
from seventy.models.rotary import Rotary


@dataclass(frozen=True, slots=True)
class Config:
    """The numbers of a model, as its GGUF's metadata gives them."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    epsilon: float
    rope_dim: int
    rope_base: float
    rope_scale: float

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """Raises SeventyError where a number is missing or cannot be."""
        m = Metadata(metadata, "llama")
        heads, hidden = m.integer("attention.head_count", 1, 4096), m.integer("embedding_length", 16, 1 << 17)
        head_dim = m.integer("attention.key_length", 16, 1024, default=hidden // heads)
        scaling = m.text("rope.scaling.type", default="none")
        if scaling not in ("none", "linear"):
            raise SeventyError(f"this llama model scales its positions by {scaling!r}; only 'linear' is supported")
        config = cls(
            layers=m.integer("block_count", 1, 1024),
            hidden=hidden,
            feed_forward=m.integer("feed_forward_length", 16, 1 << 20),
            heads=heads,
            kv_heads=m.integer("attention.head_count_kv", 1, 4096, default=heads),
            head_dim=head_dim,
            vocabulary=m.vocabulary(),
            context=m.integer("context_length", 1, 1 << 24),
            epsilon=m.number("attention.layer_norm_rms_epsilon"),
            rope_dim=m.integer("rope.dimension_count", 2, head_dim, default=head_dim),
            rope_base=m.number("rope.freq_base", default=10000.0),
            rope_scale=m.number("rope.scaling.factor", default=1.0) if scaling == "linear" else 1.0,
        )
        if config.heads % config.kv_heads or config.head_dim % 16 or config.rope_dim % 2:
            raise SeventyError(
                f"this llama model has {config.heads} heads, {config.kv_heads} KV heads of {config.head_dim} and "
                f"{config.rope_dim} rotated dimensions; the engine needs whole groups and heads of a multiple of 16"
            )
        return config


def build(p: Program, c: Config, w: Weights, positions: int) -> None:
    """Writes the program; `positions` is the longest context it must serve."""
    factors = None
    if w.has("rope_freqs.weight"):
        factors = w.vector("rope_freqs.weight", c.rope_dim // 2)[: c.rope_dim // 2]
    rotary = Rotary(c.rope_dim, c.rope_base, c.rope_scale, factors, interleaved=True)
    cosines, sines = rotary.tables(positions)
    kv_columns = c.kv_heads * c.head_dim

    x = p.buffer("x", c.hidden)
    q = p.buffer("queries", c.heads * c.head_dim)
    k, v = p.buffer("keys", kv_columns), p.buffer("values", kv_columns)
    attended = p.buffer("attended", c.heads * c.head_dim)
    gate, up = p.buffer("gate", c.feed_forward), p.buffer("up", c.feed_forward)

    embedding = w.matrix("token_embd.weight", c.vocabulary, c.hidden)
    p.embed(embedding, x)
    for layer in range(c.layers):
        block = f"blk.{layer}."

        h = p.norm(x, w.vector(block + "attn_norm.weight", c.hidden))
        for name, into in (("attn_q", q), ("attn_k", k), ("attn_v", v)):
            bias = _bias(w, block + name + ".bias", into.columns)
            p.matmul(h, w.matrix(f"{block}{name}.weight", into.columns, c.hidden), into, bias)
        p.rotate_and_store(q, k, v, layer, c.head_dim, cosines, sines, rotary.interleaved)
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


def _bias(w: Weights, name: str, length: int) -> NDArray[np.float32] | None:
    return w.vector(name, length) if w.has(name) else None
