"""Mixtures of experts with ordinary attention, in every corner that files have, against float forward passes."""

import importlib
from pathlib import Path

import pytest

from tests.support.families.judge import assert_exact

FAMILIES = {
    name: importlib.import_module(f"tests.support.families.{name}")
    for name in ("qwen3moe", "qwen2moe", "glm4moe", "minimax_m2", "llama")
}
CORNERS = {
    **{(name, case): corners for name, family in FAMILIES.items() for case, corners in family.CASES.items()},
    ("qwen3moe", "expert arrays"): {"expert_arrays": True},
    ("minimax_m2", "fused"): {"fused_qkv": True},
    # llama.cpp at the tests' version reads no such file of this architecture.
    ("glm4moe", "fused gate and up"): {"fused_gate_up": True, "nextn": 2},
}


@pytest.mark.parametrize(("name", "case"), CORNERS)
def test_logits_are_those_of_floats(name: str, case: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_exact(family, family.write(tmp_path / f"{name} {case}.gguf", seed=1, **CORNERS[name, case]))
