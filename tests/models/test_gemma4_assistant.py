"""Gemma 4's assistants: what they expect after a text and after their own guesses, against floats."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.engine.model import Model, Segment
from seventy.jit.isa import supported
from tests.support.families import gemma4, gemma4_assistant, llama
from tests.support.families.judge import IDS, log_probabilities

CASES: dict[str, dict[str, Any]] = gemma4.CASES | {"per layer": gemma4.CASES["E2B"] | {"window": 7}}
FED = [7, 99, 180]


@pytest.mark.parametrize("case", CASES)
def test_guesses_are_those_of_floats(case: str, tmp_path: Path) -> None:
    path = gemma4.write(tmp_path / "model.gguf", seed=1, **CASES[case])
    small = gemma4_assistant.write(tmp_path / "assistant.gguf", window=CASES[case].get("window", 48), centroids=True)
    worst = most = 0.0
    for isa in {supported()[-1].name, supported()[0].name}:
        with Model(path, threads=1, context=256, assistant=small, isa_name=isa) as model:
            assert model.predicts
            for n in (1, 33, 200):
                want = log_probabilities(gemma4_assistant.guesses(path, small, IDS[: n + 1], FED))
                found = log_probabilities(guess(model, IDS[: n + 1]))
                worst = max(worst, float(np.abs(found - want).max()))
                most = max(most, float((np.exp(want) * (want - found)).sum(-1).max()))
                model.cache.forget()
    print(f"{case}: max |delta log-probability| {worst:.1e}, KL {most:.1e}")
    assert worst <= 0.05 and most <= 2e-4


def guess(model: Model, ids: list[int]) -> np.ndarray:
    """The logits after ids, of which the model has read all but the last, and after each guess."""
    sequence, n = model.new_sequence(), len(ids) - 1
    sequence.reserve(n)
    model.step([Segment(0, ids[:n], 0, sequence.pages)])
    sequence.commit(ids[:n])
    sequence.reserve(n + 1 + len(FED), len(FED))
    fed = enumerate([ids[-1], *FED])
    found = [model.predict([Segment(n + i, [token], 1, sequence.pages, read=n)]).logits[0].copy() for i, token in fed]
    sequence.close()
    return np.array(found)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"backbone": 128}, "it is for models 128 wide, and this one is 256 wide"),
        ({"head_dim": 64}, r"it attends to heads of 64 that see all positions \(its layer 2\), and the model has none"),
        ({"window": 7}, r"it attends to heads of 64 that see a window of 7 positions \(its layer 0\), and the model"),
        ({"heads": 3}, "its 3 heads do not share the model's 2 of keys and values"),
    ],
)
def test_one_that_is_for_another_model_is_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = gemma4.write(tmp_path / "model.gguf")
    small = gemma4_assistant.write(tmp_path / "assistant.gguf", **changed)
    with pytest.raises(SeventyError, match=f"assistant.gguf cannot draft for .*model.gguf: {said}"):
        LLM(path, draft=str(small))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"without": "nextn.pre_projection.weight"}, "no tensor nextn.pre_projection.weight, which its"),
        ({"strange": "strange.weight"}, "tensors that its architecture has no use for: strange.weight;"),
        ({"width": 96}, r"tensor blk.0.ffn_gate.weight has shape \[96, 128\], its metadata says \[192, 128\]"),
    ],
)
def test_a_damaged_one_is_named_and_not_its_model(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = gemma4.write(tmp_path / "model.gguf")
    small = gemma4_assistant.write(tmp_path / "assistant.gguf", **changed)
    with pytest.raises(SeventyError, match=f"^{small}.*{said}"):
        LLM(path, draft=str(small))


def test_it_drafts_for_gemma_4_only_and_does_not_run_alone(tmp_path: Path) -> None:
    small, other = gemma4_assistant.write(tmp_path / "assistant.gguf"), llama.write(tmp_path / "llama.gguf")
    with pytest.raises(SeventyError, match="it drafts for Gemma 4, and this is a model of llama"):
        LLM(other, draft=str(small))
    with pytest.raises(SeventyError, match="does not write texts: it drafts for a model of Gemma 4; name that model"):
        LLM(small)
