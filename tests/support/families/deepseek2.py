"""DeepSeek V2, V3, R1, Kimi K2 and GLM-4.7-Flash: latent attention (MLA), dense layers first, a shared expert."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.families.common import Array, Model, attend, forward_of, guesses_of, rotate, yarn_length
from tests.support.families.writer import Types, Writer

HIDDEN, HEADS, EXPERTS = 256, 4, 8

# llama.cpp knows V2-Lite, which has no low rank of q, by its number of layers.
LITE = {
    "q_rank": None, "layers": 26, "dense": 25, "feed_forward": 64, "width": 64, "kv_rank": 128, "nope": 32, "rope": 16,
    "value": 32,
}  # fmt: skip
V3 = {
    "kv_rank": 512, "nope": 128, "rope": 64, "value": 128, "gating": 2, "groups": (4, 2), "bias": 0.5,
    "normalise": True, "weights_scale": 2.5, "yarn": 40.0, "log_multiplier": 0.1,
}  # fmt: skip
GLM = {
    "nope": 192, "rope": 64, "value": 256, "gating": 2, "bias": 0.5, "normalise": True, "weights_scale": 1.8,
    "fused_gate_up": True, "tied": True,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "legacy": {"legacy": True},
    "lite": LITE | {"yarn": 40.0, "log_multiplier": 0.0707},
    "legacy lite": LITE | {"legacy": True, "layers": 27, "dense": 26},
    "V3": V3,
    "legacy V3": V3 | {"legacy": True},
    "GLM-4.7-Flash": GLM,
    "YaRN without log multiplier": {"yarn": 4.0, "shared": 2},
    "temperature": {"yarn": 4.0, "log_multiplier": 0.1, "temperature": (0.3, 16)},
}
TWINS = {"NextN": (GLM | {"nextn": 1}, GLM)}


def write(
    path: Path,
    seed: int = 0,
    format: Types = "F32",
    architecture: str = "deepseek2",
    layers: int = 3,
    dense: int = 1,
    feed_forward: int = 320,
    nextn: int = 0,
    q_rank: int | None = 192,
    kv_rank: int = 256,
    nope: int = 64,
    rope: int = 32,
    value: int = 96,
    legacy: bool = False,
    width: int = 128,
    shared: int = 1,
    gating: int | None = None,
    groups: tuple[int, int] | None = None,
    bias: float = 0.0,
    normalise: bool = False,
    weights_scale: float | None = None,
    yarn: float | None = None,
    log_multiplier: float | None = None,
    temperature: tuple[float, int] | None = None,
    fused_gate_up: bool = False,
    tied: bool = False,
    indexer: list[int] | None = None,
    top_k: int = 2048,
) -> Path:
    """A model of so many layers, `dense` of them without experts, and `nextn` further blocks that are not run.

    `groups` are expert_group_count and expert_group_used_count, `temperature` attention.temperature_scale and _length;
    `legacy` files have attn_kv_b and no *_mla keys. `indexer` says which layers have one (DeepSeek V3.2, GLM-5).
    """
    with Writer(path, architecture, seed, format) as w:
        w.keys({
            "block_count": layers + nextn, "nextn_predict_layers": nextn or None, "embedding_length": HIDDEN,
            "context_length": 2048, "feed_forward_length": feed_forward, "expert_feed_forward_length": width,
            "attention.head_count": HEADS, "attention.head_count_kv": HEADS if legacy else 1,
            "attention.q_lora_rank": q_rank, "attention.kv_lora_rank": kv_rank,
            "attention.key_length": nope + rope if legacy else kv_rank + rope,
            "attention.value_length": value if legacy else kv_rank,
            "attention.key_length_mla": None if legacy else nope + rope,
            "attention.value_length_mla": None if legacy else value,
            "attention.layer_norm_rms_epsilon": 1e-6, "rope.dimension_count": rope, "rope.freq_base": 10000.0,
            "leading_dense_block_count": dense, "expert_count": EXPERTS, "expert_used_count": 2,
            "expert_shared_count": shared, "expert_gating_func": gating, "expert_weights_norm": normalise or None,
            "expert_weights_scale": weights_scale,
        })  # fmt: skip
        if groups:
            w.keys({"expert_group_count": groups[0], "expert_group_used_count": groups[1]})
        if temperature:
            w.keys({"attention.temperature_scale": temperature[0], "attention.temperature_length": temperature[1]})
        if indexer:
            w.keys({"attention.indexer.head_count": 2, "attention.indexer.key_length": 64})
            w.keys({"attention.indexer.top_k": top_k, "attention.indexer.types": None if all(indexer) else indexer})
        w.yarn(yarn, yarn_log_multiplier=log_multiplier)
        w.embedding_and_head(HIDDEN, EXPERTS, tied)
        for layer in range(layers + nextn):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            if q_rank:
                w.matrix(f"{block}attn_q_a.weight", q_rank, HIDDEN)
                w.vector(f"{block}attn_q_a_norm.weight", q_rank)
                w.matrix(f"{block}attn_q_b.weight", HEADS * (nope + rope), q_rank)
            else:
                w.matrix(f"{block}attn_q.weight", HEADS * (nope + rope), HIDDEN)
            w.matrix(f"{block}attn_kv_a_mqa.weight", kv_rank + rope, HIDDEN)
            w.vector(f"{block}attn_kv_a_norm.weight", kv_rank)
            # Of each head the rows that expand a latent vector to a key, and to a value.
            k = w.rng.standard_normal((HEADS, nope, kv_rank)) * kv_rank**-0.5
            v = w.rng.standard_normal((HEADS, value, kv_rank)) * kv_rank**-0.5
            if legacy:
                w.store(f"{block}attn_kv_b.weight", np.concatenate([k, v], axis=1).reshape(-1, kv_rank))
            else:
                w.store(f"{block}attn_k_b.weight", k.swapaxes(1, 2))
                w.store(f"{block}attn_v_b.weight", v)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * value)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            if layer < dense:
                w.feed_forward(block, HIDDEN, feed_forward)
            else:
                w.router(f"{block}ffn_gate_inp.weight")
                if bias:
                    w.biases(f"{block}exp_probs_b.bias", EXPERTS, size=bias)
                w.experts(block, HIDDEN, width, EXPERTS, fused_gate_up)
                w.feed_forward(block, HIDDEN, width * shared, "_shexp")
            if layer >= layers:
                w.nextn(block, HIDDEN)
        # Last, so that the other weights are those of a file without.
        for layer in (layer for layer, own in enumerate(indexer or []) if own):
            block = f"blk.{layer}.indexer."
            w.matrix(f"{block}attn_q_b.weight", 2 * 64, q_rank or 0)
            w.matrix(f"{block}attn_k.weight", 64, HIDDEN)
            w.vector(f"{block}k_norm.weight", 64)
            w.biases(f"{block}k_norm.bias", 64)
            w.biases(f"{block}proj.weight", 2, HIDDEN)
    return path


def layer(m: Model, x: Array, number: int) -> Array:
    block = f"blk.{number}."
    x = x + latent_attention(m, m.norm(x, f"{block}attn_norm"), block)
    h = m.norm(x, f"{block}ffn_norm")
    if number < m.key("leading_dense_block_count", 0):
        return x + m.feed_forward(h, block)
    gating = m.key("expert_gating_func", 2 if m.architecture == "glm-dsa" else 1)
    normalise = m.key("expert_weights_norm", False)
    routed = m.route(h, block, gating, normalise, m.key("expert_weights_scale", 0.0))
    return x + m.experts(h, block, *routed) + m.feed_forward(h, block, "_shexp")


def latent_attention(m: Model, h: Array, block: str) -> Array:
    """MLA: over the latent vectors themselves where the file has K and V apart, over expanded keys in old files."""
    rope, rank = m.key("rope.dimension_count"), m.key("attention.kv_lora_rank")
    dq = m.key("attention.key_length_mla", m.head_dim)
    # With the key neither q nor k grows longer by YaRN, without it both do; their product is scaled either way.
    multiplier = m.key("rope.scaling.yarn_log_multiplier", 0.0) / 0.1
    turn = m.rotation(rope, log_multiplier=multiplier, mscale=multiplier or 1.0)
    scale = yarn_length(m.key("rope.scaling.factor", 1.0), multiplier or 1.0) ** 2 * dq**-0.5

    if f"{block}attn_q_a.weight" in m:
        q = m.linear(m.norm(m.linear(h, f"{block}attn_q_a"), f"{block}attn_q_a_norm"), f"{block}attn_q_b")
    else:
        q = m.linear(h, f"{block}attn_q")
    q = q.reshape(m.n, m.heads, dq) * m.temperature(m.key("attention.temperature_length", 1))
    q_nope, q_rope = q[..., : dq - rope], rotate(q[..., dq - rope :], turn, False)
    latent, k_rope = np.split(m.linear(h, f"{block}attn_kv_a_mqa"), [rank], axis=1)
    latent = m.norm(latent, f"{block}attn_kv_a_norm")
    k_rope = rotate(k_rope[:, None], turn, False)

    if f"{block}attn_kv_b.weight" in m:
        expanded = m.linear(latent, f"{block}attn_kv_b").reshape(m.n, m.heads, -1)
        k_nope, v = np.split(expanded, [dq - rope], axis=2)
        k = np.concatenate([k_nope, np.repeat(k_rope, m.heads, axis=1)], axis=2)
        attended = attend(np.concatenate([q_nope, q_rope], axis=2), k, v, scale)
    else:
        q_latent = np.einsum("nhd,hrd->nhr", q_nope, m[f"{block}attn_k_b.weight"], optimize=True)
        q, k = np.concatenate([q_latent, q_rope], axis=2), np.concatenate([latent[:, None], k_rope], axis=2)
        mixed = attend(q, k, latent[:, None], scale).reshape(m.n, m.heads, rank)
        attended = np.einsum("nhr,hvr->nhv", mixed, m[f"{block}attn_v_b.weight"], optimize=True).reshape(m.n, -1)
    return m.linear(attended, f"{block}attn_output")


forward, guesses = partial(forward_of, layer=layer), partial(guesses_of, layer=layer)
