"""Ministral 3 and Mistral Small: the Llama block with YaRN and queries that grow with the position."""

from pathlib import Path
from typing import Any

from tests.support.families.common import Array, Model, attend, rotate
from tests.support.families.writer import Writer

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 256, 4, 2, 96, 8

CASES: dict[str, dict[str, Any]] = {
    "Ministral": {"yarn": 16.0, "log_multiplier": 1.0, "temperature": 0.3, "tied": True},
    "plain": {"output_bias": True},
    "YaRN": {"yarn": 4.0, "log_multiplier": 0.5, "beta_fast": 8.0, "beta_slow": 2.0},
    "experts": {"width": 160, "yarn": 4.0},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"fused": ({"fused_qkv": True}, {})}


def write(
    path: Path,
    seed: int = 0,
    format: str = "F32",
    layers: int = 3,
    width: int = 0,
    yarn: float | None = None,
    log_multiplier: float | None = None,
    beta_fast: float | None = None,
    beta_slow: float | None = None,
    temperature: float | None = None,
    fused_qkv: bool = False,
    output_bias: bool = False,
    tied: bool = False,
) -> Path:
    """`yarn` is a factor; with `width`, that of an expert, there are experts."""
    with Writer(path, "mistral3", seed, format) as w:
        w.keys({
            "block_count": layers, "embedding_length": HIDDEN, "context_length": 2048,
            "feed_forward_length": width or 320, "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
            "attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM,
            "attention.layer_norm_rms_epsilon": 1e-5, "attention.temperature_scale": temperature,
            "rope.dimension_count": HEAD_DIM, "rope.freq_base": 1e6,
        })  # fmt: skip
        if width:
            w.keys({"expert_count": EXPERTS, "expert_used_count": 2})
        more = {"log_multiplier": log_multiplier, "beta_fast": beta_fast, "beta_slow": beta_slow}
        w.yarn(yarn, **{f"yarn_{key}": value for key, value in more.items()})
        w.embedding_and_head(HIDDEN, EXPERTS if width else 0, tied)
        for layer in range(layers):
            block = f"blk.{layer}."
            w.vector(f"{block}attn_norm.weight", HIDDEN)
            w.qkv(block, HIDDEN, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, fused_qkv)
            w.matrix(f"{block}attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
            if output_bias:
                w.biases(f"{block}attn_output.bias", HIDDEN)
            w.vector(f"{block}ffn_norm.weight", HIDDEN)
            if width:
                w.router(f"{block}ffn_gate_inp.weight")
                w.experts(block, HIDDEN, width, EXPERTS)
            else:
                w.feed_forward(block, HIDDEN, 320)
    return path


def forward(path: Path, ids: list[int]) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n]."""
    m = Model(path, ids)
    turn = m.rotation(m.head_dim, log_multiplier=m.key("rope.scaling.yarn_log_multiplier", 0.0))
    warmer = m.temperature(m.key("rope.scaling.original_context_length", m.key("context_length")))
    rows = m.heads * m.head_dim, *(m.key("attention.head_count_kv") * m.head_dim,) * 2
    x = m["token_embd.weight"][ids]
    for layer in range(m.layers):
        block = f"blk.{layer}."
        q, k, v = m.qkv(m.norm(x, f"{block}attn_norm"), block, *rows)
        q, k, v = (a.reshape(m.n, -1, m.head_dim) for a in (q, k, v))
        attended = attend(rotate(q * warmer, turn, False), rotate(k, turn, False), v, m.head_dim**-0.5)
        x = x + m.linear(attended, f"{block}attn_output")
        h = m.norm(x, f"{block}ffn_norm")
        if f"{block}ffn_gate_inp.weight" in m:
            x = x + m.experts(h, block, *m.route(h, block, gating=1, normalise=True))
        else:
            x = x + m.feed_forward(h, block)
    return m.head(x), m.gaps
