"""MiniMax M2 to M2.7: q and k normed over the whole projection, half a head rotated, sigmoid router with a bias."""

from pathlib import Path
from typing import Any

from tests.support.families.common import Array, Model, attend, rotate
from tests.support.families.writer import Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 256, 6, 2, 64, 8

CASES: dict[str, dict[str, Any]] = {"plain": {}}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"fused": ({"fused_qkv": True}, {})}


def write(
    path: Path,
    seed: int = 0,
    format: str = "F32",
    layers: int = 3,
    width: int = 128,
    bias: float = 0.5,
    fused_qkv: bool = False,
) -> Path:
    with Writer(path, "minimax-m2", seed, format) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048, "feed_forward_length": width,
            "expert_feed_forward_length": width, "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
            "attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM,
            "attention.layer_norm_rms_epsilon": 1e-6, "rope.dimension_count": HEAD_DIM // 2, "rope.freq_base": 5e6,
            "expert_count": EXPERTS, "expert_used_count": 2, "expert_gating_func": 2,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, EXPERTS)
        for layer in range(layers):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused_qkv)
            w.vector(f"{block}attn_q_norm.weight", HEADS * HEAD_DIM)
            w.vector(f"{block}attn_k_norm.weight", KV_HEADS * HEAD_DIM)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            w.router(f"{block}ffn_gate_inp.weight")
            w.biases(f"{block}exp_probs_b.bias", EXPERTS, size=bias)
            w.experts(block, HIDDEN, width, EXPERTS)
    return path


def forward(path: Path, ids: list[int]) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    turn = m.rotation(m.key("rope.dimension_count"))
    rows = m.heads * m.head_dim, *(m.key("attention.head_count_kv") * m.head_dim,) * 2
    x = m["token_embd.weight"][ids]
    for layer in range(m.layers):
        block = f"blk.{layer}."
        q, k, v = m.qkv(m.norm(x, f"{block}attn_norm"), block, *rows)
        q, k = m.norm(q, f"{block}attn_q_norm"), m.norm(k, f"{block}attn_k_norm")
        q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
        attended = attend(rotate(q, turn, True), rotate(k, turn, True), v, m.head_dim**-0.5)
        x = x + m.linear(attended, f"{block}attn_output")
        h = m.norm(x, f"{block}ffn_norm")
        x = x + m.experts(h, block, *m.route(h, block, m.key("expert_gating_func"), normalise=True))
    return m.head(x), m.gaps
