"""An assistant in a file of its own drafts: texts are those without, whatever happens to them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM
from seventy.engine import draft_choice
from seventy.engine.assistant import AssistantDrafter
from seventy.engine.footprint import least_and_full
from seventy.hub import local
from tests.engine.test_multi_token import Disturbed, assert_same_texts, guess_always
from tests.engine.test_scheduler import Asked, alone, prompt
from tests.support.families import gemma4, gemma4_assistant
from tests.support.families.judge import IDS

KINDS = {"31B": gemma4.CASES["31B"], "26B-A4B": gemma4.MOE, "E2B": gemma4.CASES["E2B"]}


@pytest.fixture(scope="module", params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder, corners = tmp_path_factory.mktemp("models"), KINDS[request.param]
    small = gemma4_assistant.write(folder / "assistant.gguf", window=corners.get("window", 48))
    return gemma4.write(folder / "model.gguf", **corners), str(small)


@pytest.fixture(scope="module")
def plain(files: tuple[Path, str]) -> Iterator[LLM]:
    with LLM(files[0], threads=1, context=256, sequences=4, draft="off") as llm:
        yield llm


def test_the_text_is_the_one_without(files: tuple[Path, str], plain: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    path, small = files
    prompts = [prompt(i, 33 + 13 * i) for i in range(4)]
    with LLM(path, threads=1, context=256, draft=small) as llm:
        assert_same_texts(llm, plain, monkeypatch, AssistantDrafter)
        # Who goes away leaves nothing, and the others' texts are those without.
        without = [alone(plain, ids, 20) for ids in prompts]
        for turn in range(2):
            asked = [Asked(llm.scheduler, prompts[i % 4], 20) for i in range(8)]
            for each in asked[turn::2]:
                llm.scheduler.cancel(each.request)
            ends = [each.end().reason for each in asked]
            assert ends[1 - turn :: 2] == ["length"] * 4
            assert all(asked[i].tokens == without[i % 4][: len(asked[i].tokens)] for i in range(8))
            assert all(len(asked[i].tokens) == 20 for i in range(1 - turn, 8, 2))
        cache = llm.model.cache
        assert cache.free_pages == cache.n_pages and cache.slots.free >= cache.free_pages
        assert "drafts by the assistant" in llm.scheduler.drafts.lines()[0]


def test_guesses_are_the_same_whatever_was_guessed_and_shared(
    files: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a text that was drafted, right and wrong, an assistant expects to the bit what it does after reading it."""
    path, small = files
    with LLM(path, threads=1, context=256, draft=small) as llm:
        guess_always(llm, monkeypatch)
        seen = list[np.ndarray]()
        monkeypatch.setattr(AssistantDrafter, "_ours", lambda drafter, logits: noted(seen, logits))
        ids = prompt(1, 50)
        text = [*ids, *alone(llm, ids, 45)]
        llm.model.cache.forget()
        found = list[list[np.ndarray]]()
        for known in (False, True):
            if known:
                alone(llm, ids, 45)
            seen.clear()
            alone(llm, text[:-4], 6)
            found.append(seen[:1])
        assert found[0] and np.array_equal(*found)


def noted(seen: list[np.ndarray], logits: np.ndarray) -> np.ndarray:
    seen.append(logits.copy())
    return logits


def test_an_assistant_that_gives_no_numbers_or_fails_fails_nobody(
    files: tuple[Path, str], plain: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = prompt(1, 30)
    expected = alone(plain, ids, 40)
    for wrong in (None, OSError("it failed")):
        with LLM(files[0], threads=1, context=256, draft=files[1]) as llm, monkeypatch.context() as patch:
            guess_always(llm, patch)
            passes = Disturbed(llm.model, wrong)
            patch.setattr(llm.model, "predict", passes)
            assert alone(llm, ids, 40) == expected and passes.count == 4
            assert (llm.scheduler.drafts.model is None) == (wrong is not None)


def test_it_is_in_the_account_of_memory_and_idle_while_nothing_is_guessed(
    files: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (least, _), (without, _) = (least_and_full(files[0], 256, assistant=each) for each in (files[1], None))
    assert without < least
    with LLM(files[0], threads=1, context=256, draft=files[1], memory=least) as llm:
        assert llm.model.memory_bytes <= least
        monkeypatch.setattr(llm.scheduler.drafts.governor, "ready", lambda texts: False)
        monkeypatch.setattr(llm.model, "predict", None)
        assert len(llm.generate(IDS[:50], 20, ignore_eos=True).token_ids) == 20


def test_auto_takes_the_assistant_of_this_model_that_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gemma4.write(tmp_path / "model.gguf")
    others = gemma4_assistant.write(tmp_path / "others.gguf", backbone=128)
    files = [gemma4_assistant.write(tmp_path / "of_this.gguf"), others]
    monkeypatch.setattr(draft_choice, "_LEAST_BYTES", 1)
    monkeypatch.setattr(draft_choice, "_MOST_SHARE", 10)
    for there, found in ((files[::-1], files[0]), ([others], None)):
        models = tuple(local.Local(each, "here") for each in there)
        monkeypatch.setattr(local, "inventory", lambda models=models: local.Inventory(models))
        with LLM(path, threads=1, context=256) as llm:
            assert llm.draft_path == found and llm.model.predicts == (found is not None)
    least, _ = least_and_full(path, 256, assistant=files[0])
    monkeypatch.setattr(local, "inventory", lambda: local.Inventory((local.Local(files[0], "here"),)))
    with LLM(path, threads=1, context=256, memory=least - 1) as llm:
        assert llm.draft_path is None
