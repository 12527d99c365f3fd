"""GLM-4.5-Air, GLM-4.5 to 4.7: biases of q, k and v, half a head rotated, one dense layer, a shared expert."""

from functools import partial
from pathlib import Path
from typing import Any

from tests.support.families.common import Array, Model, attend, forward_of, guesses_of, rotate
from tests.support.families.writer import Types, Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 256, 6, 2, 64, 8

CASES: dict[str, dict[str, Any]] = {
    "Air": {},
    "355B": {"head_norms": True, "weights_scale": 2.5, "layers": 4, "nextn": 1, "shared": 2, "gating": 2},
    "softmax": {"gating": 1, "normalise": None, "fused_qkv": True, "tied": True, "groups": (4, 2), "bias": 0.1},
}


def write(
    path: Path,
    seed: int = 0,
    format: Types = "F32",
    layers: int = 3,
    nextn: int = 0,
    width: int = 160,
    shared: int = 1,
    head_norms: bool = False,
    gating: int | None = None,
    normalise: bool | None = True,
    groups: tuple[int, int] = (1, 1),
    weights_scale: float = 1.0,
    bias: float = 0.5,
    fused_qkv: bool = False,
    fused_gate_up: bool = False,
    tied: bool = False,
    scales: bool = False,
    own_head: bool = False,
) -> Path:
    """A model of so many layers, the first without experts, and `nextn` further blocks that are not run."""
    with Writer(path, "glm4moe", seed, format, scales) as w:
        w.keys({
            "block_count": layers + nextn, "nextn_predict_layers": nextn, "embedding_length": HIDDEN,
            "context_length": 2048, "feed_forward_length": 320, "expert_feed_forward_length": width,
            "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "attention.key_length": HEAD_DIM,
            "attention.value_length": HEAD_DIM, "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": HEAD_DIM // 2, "rope.freq_base": 1e6, "leading_dense_block_count": 1,
            "expert_count": EXPERTS, "expert_used_count": 2, "expert_shared_count": shared,
            "expert_group_count": groups[0], "expert_group_used_count": groups[1], "expert_gating_func": gating,
            "expert_weights_norm": normalise, "expert_weights_scale": weights_scale,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, EXPERTS, tied)
        for layer in range(layers + nextn):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused=fused_qkv, biases=True)
            for name in ("q", "k") if head_norms else ():
                w.vector(f"{block}attn_{name}_norm.weight", HEAD_DIM)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
            w.vector(f"{block}post_attention_norm.weight", HIDDEN)
            if layer == 0:
                w.feed_forward(block, HIDDEN, 320)
            else:
                w.router(f"{block}ffn_gate_inp.weight")
                w.biases(f"{block}exp_probs_b.bias", EXPERTS, size=bias)
                w.experts(block, HIDDEN, width, EXPERTS, fused_gate_up)
                w.feed_forward(block, HIDDEN, width * shared, "_shexp")
            if layer >= layers:
                w.nextn(block, HIDDEN, own_head)
    return path


def layer(m: Model, x: Array, number: int) -> Array:
    turn, block = m.rotation(m.key("rope.dimension_count")), f"blk.{number}."
    rows = m.heads * m.head_dim, *(m.key("attention.head_count_kv") * m.head_dim,) * 2
    q, k, v = m.qkv(m.norm(x, f"{block}attn_norm"), block, *rows)
    q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
    if f"{block}attn_q_norm.weight" in m:
        q, k = m.norm(q, f"{block}attn_q_norm"), m.norm(k, f"{block}attn_k_norm")
    attended = attend(rotate(q, turn, True), rotate(k, turn, True), v, m.head_dim**-0.5)
    x = x + m.linear(attended, f"{block}attn_output")
    h = m.norm(x, f"{block}post_attention_norm")
    if number < m.key("leading_dense_block_count", 0):
        return x + m.feed_forward(h, block)
    gating, normalise = m.key("expert_gating_func", 2), m.key("expert_weights_norm", False)
    routed = m.route(h, block, gating, normalise, m.key("expert_weights_scale", 0.0))
    return x + m.experts(h, block, *routed) + m.feed_forward(h, block, "_shexp")


forward, guesses = partial(forward_of, layer=layer), partial(guesses_of, layer=layer)
