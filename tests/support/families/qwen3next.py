"""Qwen3-Next and Qwen3-Coder-Next 80B-A3B: Qwen3.5's layers with experts in another order, and old files."""

from pathlib import Path
from typing import Any

from tests.support.families import qwen35moe
from tests.support.families.qwen35moe import forward, guesses

__all__ = ["CASES", "TWINS", "forward", "guesses", "write"]

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "legacy": {"legacy": True, "k_heads": 2, "v_heads": 6},
    "fused": {"fused_gate_up": True, "tied": True, "interval": 2},
}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fused": ({"fused_qkv": True}, {}),
    "NextN": ({"nextn": 1}, {}),
}


def write(path: Path, seed: int = 0, format: str = "F32", **corners: Any) -> Path:
    """`corners` are those of qwen35moe.write."""
    return qwen35moe.write(path, seed, format, "qwen3next", **corners)
