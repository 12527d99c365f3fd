"""Gemma 4: heads of two sizes, normed values, experts beside the MLP (26B-A4B), shared KV and per-layer embeddings."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.families.common import Activation, Array, Model, attend, gelu, gelu_of_llama_cpp, rms_norm, rotate
from tests.support.families.gemma3 import capped
from tests.support.families.writer import Writer

HIDDEN, HEADS, EXPERTS, HEAD_DIM, HEAD_DIM_WINDOWED = 256, 4, 8, 128, 64
TOLERANCE = 1e-2
# What makes `forward` round as llama.cpp does.
LLAMA_CPP: dict[str, Any] = {"activation": gelu_of_llama_cpp}

MOE = {"pattern": [True, True, False, True, False], "kv_heads": [2, 2, 1, 2, 1], "width": 96}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "26B-A4B": MOE | {"fused_gate_up": True, "layer_scales": True, "without_v": True, "expert_scales": True},
    "gate and up apart": MOE,
    "31B": {"kv_heads": [2, 2, 1, 2, 2, 1], "without_v": True, "layer_scales": True, "window": 7},
    "E2B": {"pattern": [True] * 3 + [False, True, False], "kv_heads": 1, "shared_kv": 2, "per_layer": 32},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"fused": ({"fused_qkv": True}, {})}


def write(
    path: Path,
    seed: int = 0,
    format: str = "F32",
    pattern: tuple[bool, ...] | list[bool] = (True, True, False, True, True, False),
    kv_heads: int | list[int] = 2,
    window: int = 48,
    width: int = 0,
    fused_gate_up: bool = False,
    fused_qkv: bool = False,
    expert_scales: bool = False,
    layer_scales: bool = False,
    without_v: bool = False,
    shared_kv: int = 0,
    per_layer: int = 0,
) -> Path:
    """`pattern` says which layers are windowed; with `width`, that of an expert, there are experts.

    `without_v` leaves attn_v out of full layers, `shared_kv` is how many of the last layers have no K and V (their MLP
    is twice as wide), `per_layer` the width of the per-layer embeddings.
    """
    layers = len(pattern)
    feed_forward = [320 * (1 + (layer >= layers - shared_kv)) for layer in range(layers)]
    with Writer(path, "gemma4", seed, format) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048,
            "feed_forward_length": feed_forward if shared_kv else 320, "expert_feed_forward_length": width,
            "attention.head_count": HEADS, "attention.head_count_kv": kv_heads,
            "attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM,
            "attention.key_length_swa": HEAD_DIM_WINDOWED, "attention.value_length_swa": HEAD_DIM_WINDOWED,
            "attention.layer_norm_rms_epsilon": 1e-6, "attention.sliding_window": window,
            "attention.sliding_window_pattern": list(pattern), "attention.shared_kv_layers": shared_kv,
            "rope.freq_base": 1e6, "rope.freq_base_swa": 10000.0, "rope.dimension_count": HEAD_DIM,
            "rope.dimension_count_swa": HEAD_DIM_WINDOWED, "embedding_length_per_layer_input": per_layer,
            "final_logit_softcapping": 30.0,
        })  # fmt: skip
        if width:
            w.keys({"expert_count": EXPERTS, "expert_used_count": 2})
        w.embedding_and_head(HIDDEN, EXPERTS if width else 0, tied=True, multiplier=HIDDEN**0.5)
        # A quarter of the pairs is rotated.
        w.add("rope_freqs.weight", np.repeat([1.0, 1e30], [HEAD_DIM // 8, HEAD_DIM // 2 - HEAD_DIM // 8]))
        if per_layer:
            w.matrix("per_layer_token_embd.weight", w.vocabulary, per_layer * layers, gain=layers**0.5)
            w.biases("per_layer_model_proj.weight", per_layer * layers, HIDDEN, size=1.0)
            w.vector("per_layer_proj_norm.weight", per_layer)
        for layer in range(layers):
            block = f"blk.{layer}."
            head_dim = HEAD_DIM_WINDOWED if pattern[layer] else HEAD_DIM
            kv = (kv_heads[layer] if isinstance(kv_heads, list) else kv_heads) * head_dim
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            if fused_qkv:
                w.qkv(block, HIDDEN, HEADS * head_dim, kv, fused=True)
            else:
                w.matrix(f"{block}attn_q.weight", HEADS * head_dim, HIDDEN)
                if layer < layers - shared_kv:
                    w.matrix(f"{block}attn_k.weight", kv, HIDDEN)
                    if pattern[layer] or not without_v:
                        w.matrix(f"{block}attn_v.weight", kv, HIDDEN)
            # Scores are not divided by the root of the head's size.
            for name in ("q", "k") if layer < layers - shared_kv else ("q",):
                w.vector(f"{block}attn_{name}_norm.weight", head_dim, 0.15, 0.45)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * head_dim)
            w.feed_forward(block, HIDDEN, feed_forward[layer])
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            for name in ("post_attention", "post_ffw"):
                w.vector(f"{block}{name}_norm.weight", HIDDEN, 0.25, 0.75)
            if width:
                for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
                    w.vector(f"{block}{name}.weight", HIDDEN)
                w.router(f"{block}ffn_gate_inp.weight", gain=6.0 * HIDDEN**0.5)
                w.vector(f"{block}ffn_gate_inp.scale", HIDDEN)
                w.experts(block, HIDDEN, width, EXPERTS, fused_gate_up)
                if expert_scales:
                    w.vector(f"{block}ffn_down_exps.scale", EXPERTS)
            if per_layer:
                w.matrix(f"{block}inp_gate.weight", per_layer, HIDDEN)
                w.matrix(f"{block}proj.weight", HIDDEN, per_layer)
                w.vector(f"{block}post_norm.weight", HIDDEN, 0.25, 0.75)
            if layer_scales:
                w.vector(f"{block}layer_output_scale.weight", 1)
    return path


def forward(path: Path, ids: list[int], activation: Activation = gelu) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    return capped(m, m.head(run(m, ids, activation)[0])), m.gaps


def run(m: Model, ids: list[int], activation: Activation = gelu) -> tuple[Array, dict[int, tuple[Array, Array]]]:
    """The last layer's rows, and each layer's rotated keys and values."""
    x = m["token_embd.weight"][ids] * np.float32(m.key("embedding_length") ** 0.5)
    width = m.key("embedding_length_per_layer_input", 0)
    extra = per_layer_inputs(m, x, ids, width) if width else []
    cache: dict[int, tuple[Array, Array]] = {}
    for layer in range(m.layers):
        block = f"blk.{layer}."
        h = attention(m, m.norm(x, f"{block}attn_norm"), layer, cache)
        x = x + m.norm(h, f"{block}post_attention_norm")
        h = m.feed_forward(m.norm(x, f"{block}ffn_norm"), block, activation=activation)
        if f"{block}ffn_gate_inp.weight" in m:
            h = m.norm(h, f"{block}post_ffw_norm_1") + routed(m, x, block, activation)
        x = x + m.norm(h, f"{block}post_ffw_norm")
        if width:
            h = activation(m.linear(x, f"{block}inp_gate")) * extra[layer]
            x = x + m.norm(m.linear(h, f"{block}proj"), f"{block}post_norm")
        if f"{block}layer_output_scale.weight" in m:
            x = x * m[f"{block}layer_output_scale.weight"]
    return x, cache


def attention(m: Model, h: Array, layer: int, cache: dict[int, tuple[Array, Array]]) -> Array:
    """Windowed or full; `cache` has the rotated keys and the values of the layers so far."""
    block = f"blk.{layer}."
    window = m.window(layer, 0)
    head_dim = m.key("attention.key_length_swa" if window else "attention.key_length")
    if window:
        turn = m.rotation(m.key("rope.dimension_count_swa"), m.key("rope.freq_base_swa", 10000.0), scaled=False)
    else:
        turn = m.rotation(m.key("rope.dimension_count"), divisors=m["rope_freqs.weight"])

    def heads(x: Array) -> Array:
        return x.reshape(m.n, -1, head_dim)

    own = m.layers - m.key("attention.shared_kv_layers", 0)
    if f"{block}attn_qkv.weight" in m:
        kv = m.of_layer("attention.head_count_kv", layer) * head_dim
        q, k, v = m.qkv(h, block, m.heads * head_dim, kv, kv)
    else:
        q = m.linear(h, f"{block}attn_q")
        if layer < own:
            k = m.linear(h, f"{block}attn_k")
            v = m.linear(h, f"{block}attn_v") if f"{block}attn_v.weight" in m else k
    if layer < own:
        k = rotate(m.norm(heads(k), f"{block}attn_k_norm"), turn, True)
        cache[layer] = k, rms_norm(heads(v), m.epsilon)
    q = rotate(m.norm(heads(q), f"{block}attn_q_norm"), turn, True)
    k, v = cache[layer if layer < own else own - 2 if window else own - 1]
    return m.linear(attend(q, k, v, 1.0, window), f"{block}attn_output")


def routed(m: Model, x: Array, block: str, activation: Activation) -> Array:
    """The experts' part of the feed-forward; the router looks at the residual stream with a norm of its own."""
    t = rms_norm(x, m.epsilon) * np.float32(x.shape[1] ** -0.5) * m[f"{block}ffn_gate_inp.scale"]
    choice = m.route(t, block, gating=1, normalise=True, logits=t @ m[f"{block}ffn_gate_inp.weight"].T)
    h = m.norm(x, f"{block}pre_ffw_norm_2")
    h = m.experts(h, block, *choice, lambda gate, up: activation(gate) * up)
    return m.norm(h, f"{block}post_ffw_norm_2")


def per_layer_inputs(m: Model, x: Array, ids: list[int], width: int) -> Array:
    """[layers, n, width]: what each layer adds of each token's own embedding and of x."""
    tokens = m["per_layer_token_embd.weight"][ids].reshape(m.n, m.layers, width) * np.float32(width**0.5)
    projected = m.linear(x, "per_layer_model_proj") * np.float32(x.shape[1] ** -0.5)
    projected = m.norm(projected.reshape(tokens.shape), "per_layer_proj_norm")
    return ((tokens + projected) * np.float32(0.5**0.5)).swapaxes(0, 1)
