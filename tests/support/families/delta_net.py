"""What Qwen3.5 (dense and with experts) and Qwen3-Next share: gated delta-net layers and gated attention."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.families.common import Array, Model, attend, convolve, rotate, sigmoid, silu
from tests.support.families.writer import Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, ROTATED, EXPERTS = 256, 4, 2, 64, 16, 8


def write(
    path: Path,
    architecture: str,
    seed: int,
    format: str,
    write_feed_forward: Callable[[Writer, str], None],
    layers: int = 5,
    nextn: int = 0,
    state: int = 64,
    k_heads: int = 2,
    v_heads: int = 4,
    kernel: int = 4,
    interval: int | None = None,
    recurrent: list[bool] | None = None,
    experts: int = 0,
    legacy: bool = False,
    fused_qkv: bool = False,
    scales: bool = False,
    tied: bool = False,
    **keys: Any,
) -> Path:
    """A model of so many layers and `nextn` further blocks that are not run.

    Every layer is a delta-net but each `interval`-th (4 if None), or as the array `recurrent` says; `state` is the size
    of a head. `legacy` files of Qwen3-Next have one ssm_in instead of attn_qkv and attn_gate.
    """
    channels = state * (2 * k_heads + v_heads)
    with Writer(path, architecture, seed, format, scales) as w:
        w.keys({
            "block_count": layers + nextn, "nextn_predict_layers": nextn or None, "embedding_length": HIDDEN,
            "context_length": 2048, "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
            "attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM,
            "attention.layer_norm_rms_epsilon": 1e-6, "rope.dimension_count": ROTATED, "rope.freq_base": 1e7,
            "ssm.state_size": state, "ssm.group_count": k_heads, "ssm.time_step_rank": v_heads,
            "ssm.inner_size": state * v_heads, "ssm.conv_kernel": kernel, "full_attention_interval": interval,
            "attention.recurrent_layers": recurrent and recurrent + [False] * nextn, **keys,
        })  # fmt: skip
        w.embedding_and_head(HIDDEN, experts, tied)
        for layer in range(layers + nextn):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            if layer < layers and (recurrent[layer] if recurrent else (layer + 1) % (interval or 4)):
                if legacy:
                    w.matrix(f"{block}ssm_in.weight", channels + state * v_heads, HIDDEN)
                else:
                    w.matrix(f"{block}attn_qkv.weight", channels, HIDDEN, scaled=True)
                    w.matrix(f"{block}attn_gate.weight", state * v_heads, HIDDEN, scaled=True)
                if architecture == "qwen3next":
                    w.matrix(f"{block}ssm_ba.weight", 2 * v_heads, HIDDEN)
                else:
                    w.matrix(f"{block}ssm_alpha.weight", v_heads, HIDDEN, scaled=True)
                    w.matrix(f"{block}ssm_beta.weight", v_heads, HIDDEN, scaled=True)
                w.biases(f"{block}ssm_conv1d.weight", channels, kernel, size=1.0)
                w.vector(f"{block}ssm_dt.bias", v_heads, -4.0, 0.0)
                w.vector(f"{block}ssm_a", v_heads, -4.0, -0.25)
                w.vector(f"{block}ssm_norm.weight", state)
                w.matrix(f"{block}ssm_out.weight", HIDDEN, state * v_heads, scaled=True)
            else:
                w.qkv(block, HIDDEN, 2 * HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused=fused_qkv)
                w.vector(f"{block}attn_q_norm.weight", HEAD_DIM)
                w.vector(f"{block}attn_k_norm.weight", HEAD_DIM)
                w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM, gain=2.0, scaled=True)
            w.vector(f"{block}post_attention_norm.weight", HIDDEN)
            write_feed_forward(w, block)
            if layer >= layers:
                w.nextn(block, HIDDEN)
    return path


def layer_of(m: Model, x: Array, number: int, feed_forward: Callable[[Model, Array, str], Array]) -> Array:
    """What a layer makes of the rows: a delta-net or attention, then this feed-forward."""
    block = f"blk.{number}."
    mixer = delta_net if f"{block}ssm_out.weight" in m else gated_attention
    x = x + mixer(m, m.norm(x, f"{block}attn_norm"), block)
    return x + feed_forward(m, m.norm(x, f"{block}post_attention_norm"), block)


def gated_attention(m: Model, h: Array, block: str) -> Array:
    turn = m.rotation(m.key("rope.dimension_count"))
    kv = m.key("attention.head_count_kv") * m.head_dim
    q, k, v = m.qkv(h, block, 2 * m.heads * m.head_dim, kv, kv)
    q, gate = np.split(q.reshape(m.n, m.heads, 2 * m.head_dim), 2, axis=2)
    k, v = (a.reshape(m.n, -1, m.head_dim) for a in (k, v))
    q, k = m.norm(q, f"{block}attn_q_norm"), m.norm(k, f"{block}attn_k_norm")
    attended = attend(rotate(q, turn, True), rotate(k, turn, True), v, m.head_dim**-0.5)
    return m.linear(attended * sigmoid(gate).reshape(m.n, -1), f"{block}attn_output")


def delta_net(m: Model, h: Array, block: str) -> Array:
    """A causal convolution, then for each head a matrix S that is decayed, corrected by k and v, and asked by q."""
    d, k_heads, v_heads = m.key("ssm.state_size"), m.key("ssm.group_count"), m.key("ssm.time_step_rank")
    each = v_heads // k_heads
    if f"{block}ssm_in.weight" in m:
        parts = m.linear(h, f"{block}ssm_in").reshape(m.n, k_heads, -1)
        q, k, v, z = (a.reshape(m.n, -1) for a in np.split(parts, np.cumsum([d, d, d * each]), axis=2))
        u = np.concatenate([q, k, v], axis=1)
    else:
        u, z = m.linear(h, f"{block}attn_qkv"), m.linear(h, f"{block}attn_gate")
    if f"{block}ssm_ba.weight" in m:
        b, a = np.split(m.linear(h, f"{block}ssm_ba").reshape(m.n, k_heads, -1), 2, axis=2)
        a, b = a.reshape(m.n, -1), b.reshape(m.n, -1)
    else:
        a, b = m.linear(h, f"{block}ssm_alpha"), m.linear(h, f"{block}ssm_beta")

    u = silu(convolve(u, m[f"{block}ssm_conv1d.weight"]))
    q, k, v = (part.reshape(m.n, -1, d) for part in np.split(u, [d * k_heads, 2 * d * k_heads], axis=1))
    q, k = (x / np.sqrt((x * x).sum(-1, keepdims=True) + np.float32(m.epsilon)) for x in (q, k))
    # Which key head a value head has: Qwen3.5's file goes round the key heads, Qwen3-Next's has neighbours together.
    of = np.arange(v_heads) // each if m.architecture == "qwen3next" else np.arange(v_heads) % k_heads
    q, k = q[:, of], k[:, of]
    decay = np.exp(m[f"{block}ssm_a"] * np.logaddexp(a + m[f"{block}ssm_dt.bias"], np.float32(0)))
    beta = sigmoid(b)

    state = np.zeros((v_heads, d, d), np.float32)
    out = np.empty_like(v)
    for t in range(m.n):
        state *= decay[t][:, None, None]
        delta = beta[t][:, None] * (v[t] - np.einsum("hij,hi->hj", state, k[t]))
        state += k[t][:, :, None] * delta[:, None, :]
        out[t] = np.einsum("hij,hi->hj", state, q[t]) * np.float32(d**-0.5)
    out = m.norm(out, f"{block}ssm_norm") * silu(z.reshape(out.shape))
    return m.linear(out.reshape(m.n, -1), f"{block}ssm_out")
