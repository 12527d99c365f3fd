"""Qwen3-30B-A3B, Coder-30B, 235B: the dense Qwen3 block with experts in every layer."""

from pathlib import Path
from typing import Any

from tests.support.families.common import Array, Model, attend, rotate
from tests.support.families.writer import Types, Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 256, 4, 2, 96, 8

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fused": {"fused_qkv": True, "scales": True, "tied": True},
    "yarn": {"arrays": True, "yarn": 4.0},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"expert arrays": ({"expert_arrays": True}, {})}


def write(
    path: Path,
    seed: int = 0,
    format: Types = "F32",
    layers: int = 3,
    width: int = 128,
    fused_qkv: bool = False,
    scales: bool = False,
    tied: bool = False,
    arrays: bool = False,
    expert_arrays: bool = False,
    yarn: float | None = None,
    used: int = 2,
) -> Path:
    """`width` is that of an expert, `yarn` a factor; with `arrays` and `expert_arrays` these are arrays."""

    def of_layers(value: int, arrays: bool = arrays) -> int | list[int]:
        return [value] * layers if arrays else value

    with Writer(path, "qwen3moe", seed, format, scales) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048,
            "feed_forward_length": of_layers(512),
            "expert_feed_forward_length": of_layers(width, expert_arrays),
            "attention.head_count": of_layers(HEADS), "attention.head_count_kv": of_layers(KV_HEADS),
            "attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM,
            "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 10000.0,
            "expert_count": EXPERTS, "expert_used_count": of_layers(used, expert_arrays),
        })  # fmt: skip
        w.yarn(yarn)
        w.embedding_and_head(HIDDEN, EXPERTS, tied)
        for layer in range(layers):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused=fused_qkv)
            w.vector(f"{block}attn_q_norm.weight", HEAD_DIM)
            w.vector(f"{block}attn_k_norm.weight", HEAD_DIM)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM, scaled=True)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            w.router(f"{block}ffn_gate_inp.weight")
            w.experts(block, HIDDEN, width, EXPERTS)
    return path


def forward(path: Path, ids: list[int]) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    turn = m.rotation(m.head_dim)
    x = m["token_embd.weight"][ids]
    for layer in range(m.layers):
        block = f"blk.{layer}."
        heads, kv_heads = m.of_layer("attention.head_count", layer), m.of_layer("attention.head_count_kv", layer)
        h = m.norm(x, f"{block}attn_norm")
        q, k, v = m.qkv(h, block, heads * m.head_dim, kv_heads * m.head_dim, kv_heads * m.head_dim)
        q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
        q, k = m.norm(q, f"{block}attn_q_norm"), m.norm(k, f"{block}attn_k_norm")
        attended = attend(rotate(q, turn, True), rotate(k, turn, True), v, m.head_dim**-0.5)
        x = x + m.linear(attended, f"{block}attn_output")
        h = m.norm(x, f"{block}ffn_norm")
        x = x + m.experts(h, block, *m.route(h, block, gating=1, normalise=True))
    return m.head(x), m.gaps
