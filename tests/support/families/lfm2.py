"""LFM2 and LFM2.5, dense: short convolutions, and attention in some layers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.families.common import Array, Model, attend, convolve, rotate
from tests.support.families.writer import Writer

HIDDEN, HEADS, HEAD_DIM = 256, 4, 64

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 7, "tied": False, "kv_heads": [0, 4, 0, 1, 2], "taps": 4},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"fused": ({"fused_qkv": True}, {})}


def write(
    path: Path,
    seed: int = 0,
    format: str = "F32",
    architecture: str = "lfm2",
    kv_heads: tuple[int, ...] | list[int] = (0, 0, 2, 0, 2),
    taps: int = 3,
    feed_forward: int = 320,
    write_experts: Callable[[Writer, str, int], bool] = lambda w, block, layer: False,
    experts: int = 0,
    window: int | None = None,
    fused_qkv: bool = False,
    tied: bool = True,
    **keys: Any,
) -> Path:
    """A layer without `kv_heads` is a convolution over `taps` rows; the others may have a `window`.

    `write_experts` writes a layer's experts, or returns False for a dense layer.
    """
    with Writer(path, architecture, seed, format) as w:
        w.keys({
            "block_count": len(kv_heads), "embedding_length": HIDDEN, "context_length": 2048,
            "feed_forward_length": feed_forward, "attention.head_count": HEADS,
            "attention.head_count_kv": list(kv_heads), "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.sliding_window": window, "rope.freq_base": 1e6, "shortconv.l_cache": taps, **keys,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, experts, tied, norm="token_embd_norm")
        for layer, heads in enumerate(kv_heads):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            if heads:
                w.qkv(block, HIDDEN, HEADS * HEAD_DIM, heads * HEAD_DIM, fused_qkv)
                w.vector(f"{block}attn_q_norm.weight", HEAD_DIM)
                w.vector(f"{block}attn_k_norm.weight", HEAD_DIM)
                w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
            else:
                w.matrix(f"{block}shortconv.in_proj.weight", 3 * HIDDEN, HIDDEN)
                w.biases(f"{block}shortconv.conv.weight", HIDDEN, taps)
                w.matrix(f"{block}shortconv.out_proj.weight", HIDDEN, HIDDEN)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            if not write_experts(w, block, layer):
                w.feed_forward(block, HIDDEN, feed_forward)
    return path


def forward(path: Path, ids: list[int]) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    turn = m.rotation(m.head_dim)
    x = m["token_embd.weight"][ids]
    for layer in range(m.layers):
        block = f"blk.{layer}."
        h = m.norm(x, f"{block}attn_norm")
        kv = m.of_layer("attention.head_count_kv", layer) * m.head_dim
        if kv:
            q, k, v = m.qkv(h, block, m.heads * m.head_dim, kv, kv)
            q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
            q, k = m.norm(q, f"{block}attn_q_norm"), m.norm(k, f"{block}attn_k_norm")
            window = m.key("attention.sliding_window", 0)
            h = attend(rotate(q, turn, True), rotate(k, turn, True), v, m.head_dim**-0.5, window)
            x = x + m.linear(h, f"{block}attn_output")
        else:
            b, c, u = np.split(m.linear(h, f"{block}shortconv.in_proj"), 3, axis=1)
            x = x + m.linear(c * convolve(b * u, m[f"{block}shortconv.conv.weight"]), f"{block}shortconv.out_proj")
        h = m.norm(x, f"{block}ffn_norm")
        if f"{block}ffn_gate_inp.weight" in m:
            x = x + m.experts(h, block, *m.route(h, block, m.key("expert_gating_func"), normalise=True))
        else:
            x = x + m.feed_forward(h, block)
    return m.head(x, "token_embd_norm"), m.gaps
