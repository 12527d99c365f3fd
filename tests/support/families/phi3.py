"""Phi-3 and Phi-4: one matrix for queries, keys and values, one for gate and up, longrope."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.families.common import Array, Model, attend, rotate, silu
from tests.support.families.writer import Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, ROTARY = 256, 4, 2, 64, 48
# The context of the tests, with which longrope decides.
CONTEXT = 512

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "mini": {"rotary": ROTARY, "tied": True, "original": 64, "lengthening": 1.19},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}


def write(
    path: Path,
    seed: int = 0,
    format: str = "F32",
    layers: int = 3,
    width: int = 320,
    rotary: int = HEAD_DIM,
    tied: bool = False,
    original: int = 0,
    lengthening: float | None = None,
    window: int | None = None,
) -> Path:
    """With `original`, the context it was first made for, the file has longrope's divisors."""
    with Writer(path, "phi3", seed, format) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048, "feed_forward_length": width,
            "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
            "attention.layer_norm_rms_epsilon": 1e-5, "rope.dimension_count": rotary, "rope.freq_base": 1e4,
            "rope.scaling.original_context_length": original or None, "rope.scaling.attn_factor": lengthening,
            "attention.sliding_window": window,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, tied=tied)
        if original:
            w.vector("rope_factors_short.weight", rotary // 2, 1.0, 1.5)
            w.vector("rope_factors_long.weight", rotary // 2, 1.0, 8.0)
        for layer in range(layers):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused=True)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            w.matrix(f"{block}ffn_up.weight", 2 * width, HIDDEN)
            w.matrix(f"{block}ffn_down.weight", HIDDEN, width)
    return path


def forward(path: Path, ids: list[int], context: int = CONTEXT) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n], for a context of so many positions."""
    m = Model(path, ids)
    kind = "long" if context > m.key("rope.scaling.original_context_length", 2048) else "short"
    turn = m.rotation(m.key("rope.dimension_count"), divisors=m.optional(f"rope_factors_{kind}.weight"))
    turn = turn * m.key("rope.scaling.attn_factor", 1.0)
    rows = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    x = m["token_embd.weight"][ids]
    for layer in range(m.layers):
        block = f"blk.{layer}."
        q, k, v = (a.reshape(m.n, -1, HEAD_DIM) for a in m.qkv(m.norm(x, f"{block}attn_norm"), block, *rows))
        window = m.key("attention.sliding_window", 0)
        h = attend(rotate(q, turn, True), rotate(k, turn, True), v, HEAD_DIM**-0.5, window)
        x = x + m.linear(h, f"{block}attn_output")
        gate, up = np.split(m.linear(m.norm(x, f"{block}ffn_norm"), f"{block}ffn_up"), 2, axis=1)
        x = x + m.linear(silu(gate) * up, f"{block}ffn_down")
    return m.head(x), m.gaps
