"""Qwen3.5 and Qwen3.6 with experts (35B-A3B, 122B, 397B): Qwen3.5's layers, experts and a gated shared expert."""

from functools import partial
from pathlib import Path
from typing import Any

from tests.support.families import delta_net
from tests.support.families.common import Array, Model, forward_of, guesses_of, sigmoid
from tests.support.families.delta_net import EXPERTS, HIDDEN
from tests.support.families.writer import Writer

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scales": {"scales": True, "tied": True},
    "NextN": {"nextn": 1, "fused_gate_up": True, "interval": 2, "k_heads": 2, "v_heads": 6},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"fused": ({"fused_qkv": True}, {})}


def write(
    path: Path,
    seed: int = 0,
    format: str = "F32",
    architecture: str = "qwen35moe",
    width: int = 64,
    fused_gate_up: bool = False,
    **corners: Any,
) -> Path:
    """`width` is that of an expert; `corners` are those of delta_net.write."""

    def write_feed_forward(w: Writer, block: str) -> None:
        w.router(f"{block}ffn_gate_inp.weight")
        w.experts(block, HIDDEN, width, EXPERTS, fused_gate_up)
        w.feed_forward(block, HIDDEN, 2 * width, "_shexp")
        w.biases(f"{block}ffn_gate_inp_shexp.weight", HIDDEN, size=2 * HIDDEN**-0.5)

    keys = {
        "feed_forward_length": 512, "expert_feed_forward_length": width, "expert_count": EXPERTS,
        "expert_shared_feed_forward_length": 2 * width, "expert_used_count": 2,
    }  # fmt: skip
    if architecture == "qwen35moe":
        keys["rope.dimension_sections"] = [3, 3, 2, 0]
    return delta_net.write(path, architecture, seed, format, write_feed_forward, experts=EXPERTS, **keys, **corners)


def feed_forward(m: Model, h: Array, block: str) -> Array:
    gate = sigmoid(h @ m[f"{block}ffn_gate_inp_shexp.weight"])[:, None]
    routed = m.experts(h, block, *m.route(h, block, gating=1, normalise=True))
    return routed + gate * m.feed_forward(h, block, "_shexp")


layer = partial(delta_net.layer_of, feed_forward=feed_forward)
forward, guesses = partial(forward_of, layer=layer), partial(guesses_of, layer=layer)
