"""DeepSeek V3.2: deepseek2 and an indexer that chooses top_k keys; equal to deepseek2 up to top_k tokens."""

from pathlib import Path
from typing import Any

from tests.support.families import deepseek2
from tests.support.families.deepseek2 import V3, forward, guesses

__all__ = ["CASES", "TWINS", "forward", "guesses", "write"]

CASES: dict[str, dict[str, Any]] = {}
# The wheel's llama.cpp does not know this architecture.
AS_DEEPSEEK2: dict[str, Any] = {"architecture": "deepseek2", "indexer": None}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, AS_DEEPSEEK2),
    "NextN": ({"nextn": 1, "indexer": [1, 1, 1, 1]}, AS_DEEPSEEK2),
}


def write(path: Path, seed: int = 0, format: str = "F32", **corners: Any) -> Path:
    """`corners` are those of deepseek2.write."""
    return deepseek2.write(path, seed, format, **V3 | {"architecture": "deepseek32", "indexer": [1, 1, 1]} | corners)
