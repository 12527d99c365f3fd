"""LFM2-8B-A1B and LFM2-24B-A2B: LFM2 with experts after the first layers, chosen by sigmoid and bias."""

from pathlib import Path
from typing import Any

from tests.support.families import lfm2
from tests.support.families.lfm2 import HIDDEN, forward
from tests.support.families.writer import Writer

__all__ = ["CASES", "TWINS", "forward", "write"]

EXPERTS = 8

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "own head": {"tied": False, "kv_heads": [0, 4, 0, 1, 2], "dense": 3, "bias": 0.3},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"fused": ({"fused_qkv": True}, {})}


def write(
    path: Path, seed: int = 0, format: str = "F32", dense: int = 2, width: int = 96, bias: float = 0.5, **corners: Any
) -> Path:
    """`dense` layers without experts come first; `corners` are those of lfm2.write."""

    def write_experts(w: Writer, block: str, layer: int) -> bool:
        if layer < dense:
            return False
        w.router(f"{block}ffn_gate_inp.weight")
        w.biases(f"{block}exp_probs_b.bias", EXPERTS, size=bias)
        w.experts(block, HIDDEN, width, EXPERTS)
        return True

    keys = {
        "leading_dense_block_count": dense, "expert_feed_forward_length": width, "expert_count": EXPERTS,
        "expert_used_count": 2, "expert_gating_func": 2,
    }  # fmt: skip
    experts = {"write_experts": write_experts, "experts": EXPERTS}
    return lfm2.write(path, seed, format, "lfm2moe", **experts, **keys, **corners)
