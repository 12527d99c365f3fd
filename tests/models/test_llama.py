"""The default model, whole: as right as llama.cpp, on every ISA level."""

from pathlib import Path

import numpy as np
import pytest

from seventy import LLM
from seventy.jit.isa import Isa
from tests.support.oracle import TEXTS, assert_as_right_as_llama_cpp, divergence, llama_cpp_logits, references


@pytest.fixture(scope="module")
def ids(smollm2: Path) -> list[list[int]]:
    """English, Chinese and code."""
    with LLM(smollm2, threads=1) as llm:
        return [llm.tokenize(text) for text in TEXTS.values()]


@pytest.fixture(scope="module")
def reference(smollm2: Path, ids: list[list[int]]) -> dict[str, np.ndarray]:
    return references(smollm2, ids)


def test_as_right_as_llama_cpp(
    smollm2: Path, ids: list[list[int]], reference: dict[str, np.ndarray], isa: Isa
) -> None:
    with LLM(smollm2, threads=2, isa=isa.name) as llm:
        ours = np.concatenate([llm.logits(each) for each in ids])
    assert_as_right_as_llama_cpp(reference, ours)


def test_the_bar_would_catch_a_small_mistake(reference: dict[str, np.ndarray]) -> None:
    # A temperature off by five per cent is what a wrong scale somewhere looks like.
    own_kl, _ = divergence(reference["flash"], reference["plain"])
    assert divergence(reference["flash"], reference["plain"] * 1.05)[0] > 1.1 * own_kl


def test_a_cache_of_bytes_costs_no_more_than_llama_cpps(
    smollm2: Path, ids: list[list[int]], reference: dict[str, np.ndarray]
) -> None:
    with LLM(smollm2, threads=2, kv="q8_0") as llm:
        ours = np.concatenate([llm.logits(each) for each in ids])
    theirs = np.concatenate([llama_cpp_logits(smollm2, each, True, q8_kv=True) for each in ids])
    kl, top1 = divergence(reference["float32"], ours)
    their_kl, their_top1 = divergence(reference["float32"], theirs)
    assert kl <= 1.25 * their_kl
    assert top1 >= their_top1 - 0.02
