"""Phi-3 and Phi-4, in every corner that files have, against float forward passes."""

from pathlib import Path

import pytest

from tests.support.families import phi3
from tests.support.families.judge import assert_as_near_as_llama_cpp, assert_exact

FAMILIES = {"phi3": phi3}
CORNERS = {
    **phi3.CASES,
    "short": {"original": 1024, "lengthening": 1.19},
    # llama.cpp gives them all positions; they were trained with a window.
    "window": {"window": 40},
}


@pytest.mark.parametrize("case", CORNERS)
def test_logits_are_those_of_floats(case: str, tmp_path: Path) -> None:
    assert_exact(phi3, phi3.write(tmp_path / f"{case}.gguf", seed=1, **CORNERS[case]))


def test_quantised_files_are_as_right_as_llama_cpp(tmp_path: Path) -> None:
    assert_as_near_as_llama_cpp(phi3, phi3.write(tmp_path / "model.gguf", seed=1, format="Q8_0"))
