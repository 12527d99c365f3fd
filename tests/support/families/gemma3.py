"""Gemma 3: a norm on both sides of each sublayer, five windowed layers for each full one, GELU."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.families.common import Activation, Array, Model, attend, gelu, gelu_of_llama_cpp, rotate
from tests.support.families.writer import Writer

HIDDEN = 256
# For 62 layers; with 7 it is half of that.
TOLERANCE = 1.5e-2
# What makes `forward` round as llama.cpp does.
LLAMA_CPP: dict[str, Any] = {"activation": gelu_of_llama_cpp}

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "4B": {"layers": 6, "linear": 8.0, "window": 7, "base_swa": 5000.0},
    "no window": {"window": None, "layers": 3, "cap": 30.0, "linear": 8.0},
    # Known by its number of layers, it has a scale of its own.
    "27B": {"layers": 62, "heads": 2, "kv_heads": 1, "head_dim": 32, "feed_forward": 32, "linear": 8.0},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "array": ({"pattern": [True, True, True, True, True, False, True]}, {}),
    "fused": ({"fused_qkv": True}, {}),
}


def write(
    path: Path,
    seed: int = 0,
    format: str = "F32",
    layers: int = 7,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 96,
    feed_forward: int = 320,
    window: int | None = 48,
    pattern: int | list[bool] | None = None,
    linear: float | None = None,
    base_swa: float | None = None,
    cap: float | None = None,
    fused_qkv: bool = False,
) -> Path:
    """`linear` is the factor of the full layers' rope scaling, `base_swa` the windowed layers' rope.freq_base."""
    with Writer(path, "gemma3", seed, format) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048,
            "feed_forward_length": feed_forward, "attention.head_count": heads, "attention.head_count_kv": kv_heads,
            "attention.key_length": head_dim, "attention.value_length": head_dim,
            "attention.layer_norm_rms_epsilon": 1e-6, "attention.sliding_window": window,
            "attention.sliding_window_pattern": pattern, "rope.freq_base": 1e6, "rope.freq_base_swa": base_swa,
            "rope.scaling.type": "linear" if linear else None, "rope.scaling.factor": linear,
            "final_logit_softcapping": cap,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, tied=True, multiplier=HIDDEN**0.5)
        for layer in range(layers):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, heads * head_dim, kv_heads * head_dim, fused_qkv)
            w.vector(f"{block}attn_q_norm.weight", head_dim)
            w.vector(f"{block}attn_k_norm.weight", head_dim)
            w.matrix(f"{block}attn_output.weight", HIDDEN, heads * head_dim)
            w.vector(f"{block}post_attention_norm.weight", HIDDEN, 0.25, 0.75)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            w.feed_forward(block, HIDDEN, feed_forward)
            w.vector(f"{block}post_ffw_norm.weight", HIDDEN, 0.25, 0.75)
    return path


def forward(path: Path, ids: list[int], activation: Activation = gelu) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    kv = m.key("attention.head_count_kv") * m.head_dim
    full = m.rotation(m.head_dim)
    windowed = m.rotation(m.head_dim, m.key("rope.freq_base_swa", 10000.0), scaled=False)
    scale = (m.key("embedding_length") // m.heads if m.layers == 62 else m.head_dim) ** -0.5
    x = m["token_embd.weight"][ids] * np.float32(m.key("embedding_length") ** 0.5)
    for layer in range(m.layers):
        block = f"blk.{layer}."
        window = m.window(layer, 6)
        turn = windowed if window else full
        q, k, v = m.qkv(m.norm(x, f"{block}attn_norm"), block, m.heads * m.head_dim, kv, kv)
        q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
        q, k = m.norm(q, f"{block}attn_q_norm"), m.norm(k, f"{block}attn_k_norm")
        attended = attend(rotate(q, turn, True), rotate(k, turn, True), v, scale, window)
        x = x + m.norm(m.linear(attended, f"{block}attn_output"), f"{block}post_attention_norm")
        h = m.feed_forward(m.norm(x, f"{block}ffn_norm"), block, activation=activation)
        x = x + m.norm(h, f"{block}post_ffw_norm")
    return capped(m, m.head(x)), m.gaps


def capped(m: Model, logits: Array) -> Array:
    cap = np.float32(m.key("final_logit_softcapping", 0.0))
    return cap * np.tanh(logits / cap) if cap else logits
