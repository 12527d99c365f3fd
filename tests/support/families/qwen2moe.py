"""Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B: biases of q, k and v, weights not normalised, a gated shared expert."""

from pathlib import Path
from typing import Any

from tests.support.families.common import Array, Model, attend, rotate, sigmoid
from tests.support.families.writer import Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 256, 4, 2, 64, 8

CASES: dict[str, dict[str, Any]] = {"plain": {}, "old keys": {"old_keys": True, "fused_qkv": True}}


def write(
    path: Path,
    seed: int = 0,
    format: str = "F32",
    layers: int = 3,
    width: int = 128,
    old_keys: bool = False,
    fused_qkv: bool = False,
) -> Path:
    """With `old_keys` an expert's width is feed_forward_length / expert_used_count, the shared one's the former."""
    with Writer(path, "qwen2moe", seed, format) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048,
            "feed_forward_length": 2 * width if old_keys else 512,
            "expert_feed_forward_length": None if old_keys else width,
            "expert_shared_feed_forward_length": None if old_keys else 2 * width,
            "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
            "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6,
            "expert_count": EXPERTS, "expert_used_count": 2,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, EXPERTS)
        for layer in range(layers):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused=fused_qkv, biases=True)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            w.router(f"{block}ffn_gate_inp.weight")
            w.experts(block, HIDDEN, width, EXPERTS)
            w.feed_forward(block, HIDDEN, 2 * width, "_shexp")
            w.biases(f"{block}ffn_gate_inp_shexp.weight", HIDDEN, size=2 * HIDDEN**-0.5)
    return path


def forward(path: Path, ids: list[int]) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    turn = m.rotation(m.head_dim)
    rows = m.heads * m.head_dim, *(m.key("attention.head_count_kv") * m.head_dim,) * 2
    x = m["token_embd.weight"][ids]
    for layer in range(m.layers):
        block = f"blk.{layer}."
        q, k, v = m.qkv(m.norm(x, f"{block}attn_norm"), block, *rows)
        q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
        attended = attend(rotate(q, turn, True), rotate(k, turn, True), v, m.head_dim**-0.5)
        x = x + m.linear(attended, f"{block}attn_output")
        h = m.norm(x, f"{block}ffn_norm")
        gate = sigmoid(h @ m[f"{block}ffn_gate_inp_shexp.weight"])[:, None]
        x = x + m.experts(h, block, *m.route(h, block, gating=1, normalise=False))
        x = x + gate * m.feed_forward(h, block, "_shexp")
    return m.head(x), m.gaps
