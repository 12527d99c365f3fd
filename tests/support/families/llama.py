"""Mixtral: the Llama block with experts, and Llama 3's rope factors."""

from pathlib import Path
from typing import Any

from tests.support.families.common import Array, Model, attend, rotate
from tests.support.families.writer import Types, Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 256, 4, 2, 64, 8

CASES: dict[str, dict[str, Any]] = {
    "Mixtral": {},
    "fused": {"fused_qkv": True, "scales": True, "tied": True, "linear": 4.0},
    "factors": {"rope_factors": True, "output_bias": True},
}


def write(
    path: Path,
    seed: int = 0,
    format: Types = "F32",
    layers: int = 3,
    width: int = 160,
    fused_qkv: bool = False,
    scales: bool = False,
    tied: bool = False,
    linear: float | None = None,
    rope_factors: bool = False,
    output_bias: bool = False,
) -> Path:
    """`linear` is a factor of linear rope scaling."""
    with Writer(path, "llama", seed, format, scales) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048, "feed_forward_length": width,
            "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
            "attention.layer_norm_rms_epsilon": 1e-5, "rope.dimension_count": HEAD_DIM, "rope.freq_base": 1e6,
            "rope.scaling.type": "linear" if linear else None, "rope.scaling.factor": linear,
            "expert_count": EXPERTS, "expert_used_count": 2,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, EXPERTS, tied)
        if rope_factors:
            w.vector("rope_freqs.weight", HEAD_DIM // 2, 1.0, 8.0)
        for layer in range(layers):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused=fused_qkv)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM, scaled=True)
            if output_bias:
                w.biases(f"{block}attn_output.bias", HIDDEN)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            w.router(f"{block}ffn_gate_inp.weight")
            w.experts(block, HIDDEN, width, EXPERTS)
    return path


def forward(path: Path, ids: list[int]) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    turn = m.rotation(m.head_dim, divisors=m.optional("rope_freqs.weight"))
    rows = m.heads * m.head_dim, *(m.key("attention.head_count_kv") * m.head_dim,) * 2
    x = m["token_embd.weight"][ids]
    for layer in range(m.layers):
        block = f"blk.{layer}."
        q, k, v = m.qkv(m.norm(x, f"{block}attn_norm"), block, *rows)
        q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
        attended = attend(rotate(q, turn, False), rotate(k, turn, False), v, m.head_dim**-0.5)
        x = x + m.linear(attended, f"{block}attn_output")
        h = m.norm(x, f"{block}ffn_norm")
        x = x + m.experts(h, block, *m.route(h, block, gating=1, normalise=True))
    return m.head(x), m.gaps
