"""gpt-oss-20b and 120b: windows on even layers, sinks, biases everywhere, softmax over the chosen, a clamped SwiGLU."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.families.common import Array, Model, attend, rotate, sigmoid
from tests.support.families.writer import Types, Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 256, 8, 2, 64, 8

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "pattern": {"layers": 4, "pattern": 3, "window": 7, "fused_qkv": True, "yarn": None},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"array": ({"pattern": [True, True, False]}, {"pattern": 3})}


def write(
    path: Path,
    seed: int = 0,
    format: Types = "F32",
    layers: int = 3,
    width: int = 160,
    window: int = 48,
    yarn: float | None = 32.0,
    pattern: int | list[bool] | None = None,
    fused_qkv: bool = False,
    used: int = 2,
    scales: bool = False,
) -> Path:
    """`pattern` is attention.sliding_window_pattern: every such layer is full, or an array of which are windowed."""
    with Writer(path, "gpt-oss", seed, format, scales) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048, "feed_forward_length": width,
            "expert_feed_forward_length": width, "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
            "attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM, "rope.freq_base": 150000.0,
            "attention.layer_norm_rms_epsilon": 1e-5, "attention.sliding_window": window,
            "attention.sliding_window_pattern": pattern, "expert_count": EXPERTS, "expert_used_count": used,
        })  # fmt: skip
        w.yarn(yarn)
        w.embedding_and_head(HIDDEN, EXPERTS)
        for layer in range(layers):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused=fused_qkv, biases=True)
            w.biases(f"{block}attn_sinks.weight", HEADS, size=2.0)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
            w.biases(f"{block}attn_output.bias", HIDDEN)
            w.vector(f"{block}post_attention_norm.weight", HIDDEN)
            w.router(f"{block}ffn_gate_inp.weight")
            w.biases(f"{block}ffn_gate_inp.bias", EXPERTS)
            # Gates and ups beyond the limit of 7 occur.
            w.experts(block, HIDDEN, width, EXPERTS, gain=3.0)
            for name, rows in {"gate": width, "up": width, "down": HIDDEN}.items():
                w.biases(f"{block}ffn_{name}_exps.bias", EXPERTS, rows)
    return path


def forward(path: Path, ids: list[int]) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    turn = m.rotation(m.head_dim)
    kv_heads = m.key("attention.head_count_kv")
    x = m["token_embd.weight"][ids]
    for layer in range(m.layers):
        block = f"blk.{layer}."
        h = m.norm(x, f"{block}attn_norm")
        q, k, v = m.qkv(h, block, m.heads * m.head_dim, kv_heads * m.head_dim, kv_heads * m.head_dim)
        q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
        sinks = m.optional(f"{block}attn_sinks.weight")
        attended = attend(rotate(q, turn, True), rotate(k, turn, True), v, m.head_dim**-0.5, m.window(layer, 2), sinks)
        x = x + m.linear(attended, f"{block}attn_output")
        h = m.norm(x, f"{block}post_attention_norm")
        x = x + m.experts(h, block, *m.route(h, block, gating=3, normalise=False), clamped_swiglu)
    return m.head(x), m.gaps


def clamped_swiglu(gate: Array, up: Array) -> Array:
    gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
    return gate * sigmoid(1.702 * gate) * (up + 1)
