"""The default model, whole: as right as llama.cpp, on every ISA level."""

from pathlib import Path

import numpy as np
import pytest

from oracle import TEXTS, divergence, float32_logits, llama_cpp_logits
from seventy import LLM
from seventy.jit.isa import Isa


@pytest.fixture(scope="module")
def reference(smollm2: Path) -> dict[str, np.ndarray]:
    """Teacher-forced logits over English, Chinese and code, one after the other."""
    with LLM(smollm2, threads=1) as llm:
        ids = [llm.tokenize(text) for text in TEXTS.values()]
    return {
        "flash": np.concatenate([llama_cpp_logits(smollm2, each, True) for each in ids]),
        "plain": np.concatenate([llama_cpp_logits(smollm2, each, False) for each in ids]),
        "float32": np.concatenate([float32_logits(smollm2, each) for each in ids]),
    }


def test_as_right_as_llama_cpp(smollm2: Path, reference: dict[str, np.ndarray], isa: Isa) -> None:
    with LLM(smollm2, threads=2, isa=isa.name) as llm:
        ours = np.concatenate([llm.logits(llm.tokenize(text)) for text in TEXTS.values()])
    kl, top1 = divergence(reference["flash"], ours)
    own_kl, own_top1 = divergence(reference["flash"], reference["plain"])
    # 487 rows: two equally good implementations differ by some per cent of the mean, and by some rows at the top.
    assert kl <= 1.1 * own_kl
    assert top1 >= own_top1 - 0.015
    exact_kl, exact_top1 = divergence(reference["float32"], ours)
    theirs = [divergence(reference["float32"], reference[name]) for name in ("flash", "plain")]
    assert exact_kl <= 1.1 * max(kl for kl, _ in theirs)
    assert exact_top1 >= min(top1 for _, top1 in theirs) - 0.015


def test_the_bar_would_catch_a_small_mistake(reference: dict[str, np.ndarray]) -> None:
    # A temperature off by five per cent is what a wrong scale somewhere looks like.
    own_kl, _ = divergence(reference["flash"], reference["plain"])
    assert divergence(reference["flash"], reference["plain"] * 1.05)[0] > 1.1 * own_kl
