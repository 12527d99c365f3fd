"""Blocks of multi-token prediction: what they expect after a text and after their own guesses, against floats."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seventy.engine.model import Model, Segment
from tests.support.families.judge import IDS, families, log_probabilities

FAMILIES = families("qwen35", "qwen35moe", "qwen3next", "glm4moe", "deepseek2", "glm_dsa")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen35": ("qwen35", {"layers": 4, "nextn": 1}),
    "tied": ("qwen35", {"layers": 2, "interval": 2, "nextn": 1, "tied": True}),
    "qwen35moe": ("qwen35moe", {"layers": 4, "nextn": 1}),
    "qwen3next": ("qwen3next", {"layers": 2, "interval": 2, "nextn": 1}),
    "Air": ("glm4moe", {"nextn": 1}),
    "own head": ("glm4moe", {"nextn": 2, "own_head": True, "head_norms": True}),
    "Flash": ("deepseek2", {"nextn": 1, "gating": 2, "bias": 0.5}),
    "GLM-5": ("glm_dsa", {"nextn": 1, "indexer": [1, 1, 1, 1]}),
}
AFTER, FED = (1, 33, 200), [7, 99, 180]


@pytest.mark.parametrize("case", CASES)
def test_guesses_are_those_of_floats(case: str, tmp_path: Path) -> None:
    name, corners = CASES[case]
    path = FAMILIES[name].write(tmp_path / "model.gguf", seed=1, **corners)
    with Model(path, threads=1, context=256, mtp=True) as model:
        assert model.predicts
        worst = 0.0
        for n in AFTER:
            found = guess(model, IDS[: n + 1], FED)
            logits, gaps = FAMILIES[name].guesses(path, IDS[: n + 1], FED)
            want, clear = log_probabilities(logits[n:]), gaps[n:] >= 1e-3
            assert clear.any()
            worst = max(worst, float(np.abs(log_probabilities(found) - want)[clear].max()))
            model.cache.forget()
    print(f"{case}: max |delta log-probability| {worst:.1e}")
    assert worst <= 0.015


def guess(model: Model, ids: list[int], fed: list[int]) -> np.ndarray:
    """The block's logits after ids, of which the model has read all but the last, and after each guess."""
    sequence, n = model.new_sequence(), len(ids) - 1
    sequence.reserve(n)
    model.step([Segment(0, ids[:n], 0, sequence.pages, sequence.states)])
    sequence.commit(ids[:n])
    sequence.reserve(n + 1 + len(fed), len(fed))
    # The text in two pieces, then its last token, then guesses.
    first = n // 3
    if first:
        model.predict([Segment(0, ids[:first], 0, sequence.pages)])
    found = [model.predict([Segment(first, ids[first:], 1, sequence.pages)]).logits[0].copy()]
    for i, token in enumerate(fed):
        found.append(model.predict([Segment(n + 1 + i, [token], 1, sequence.pages)]).logits[0].copy())
    sequence.close()
    return np.array(found)
