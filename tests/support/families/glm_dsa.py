"""GLM-5 to 5.2: deepseek2 and an indexer in some layers; equal to deepseek2 up to top_k tokens."""

from pathlib import Path
from typing import Any

from tests.support.families import deepseek2
from tests.support.families.deepseek2 import forward, guesses

__all__ = ["CASES", "TWINS", "forward", "guesses", "write"]

# The router is a sigmoid without a key that says so.
GLM5 = {
    "nope": 192, "rope": 64, "value": 256, "bias": 0.5, "normalise": True, "weights_scale": 2.5,
    "architecture": "glm-dsa", "indexer": [1, 1, 1],
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {"plain": {}}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "5.2": ({"indexer": [1, 0, 1]}, {"architecture": "deepseek2", "indexer": None, "gating": 2}),
}


def write(path: Path, seed: int = 0, format: str = "F32", **corners: Any) -> Path:
    """`corners` are those of deepseek2.write."""
    return deepseek2.write(path, seed, format, **GLM5 | corners)
