"""A draft model: texts with it are the texts without, its cache is in order, and vocabularies are told apart."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.engine import draft_choice
from seventy.engine.draft_model import DraftModel, Vocabularies, compare
from seventy.engine.footprint import least_and_full
from seventy.engine.generation import Generation
from seventy.engine.governor import Governor
from seventy.engine.passes import MAX_PASSES
from seventy.engine.request import Finished, Request
from seventy.engine.sampler import Sampling
from seventy.hub import local
from tests.engine.test_drafts import SAMPLINGS, always
from tests.engine.test_scheduler import VARIED, Asked, alone, prompt
from tests.support.families import gpt_oss, qwen35
from tests.support.tiny import write_tiny


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Iterator[LLM]:
    with LLM(tiny, threads=2, context=512, sequences=4, draft="off") as llm:
        yield llm


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model itself, one that has nothing to do with it, one of recurrent layers, one of windows."""
    folder = tmp_path_factory.mktemp("drafts")
    return {
        "itself": tiny,
        "another": write_tiny(folder / "another.gguf", "qwen2", "Q8_0"),
        "recurrent": qwen35.write(folder / "recurrent.gguf", layers=4),
        "windows": gpt_oss.write(folder / "windows.gguf", layers=2),
    }


def all_of(
    llm: LLM, prompts: list[list[int]], n: int, samplings: list[dict[str, Any]]
) -> list[tuple[list[int], Finished]]:
    asked = [
        Asked(llm.scheduler, ids, n, user=str(i), sampling=each)
        for i, (ids, each) in enumerate(zip(prompts, samplings, strict=True))
    ]
    ends = [each.end() for each in asked]
    return [(each.tokens, end) for each, end in zip(asked, ends, strict=True)]


@pytest.mark.parametrize("kind", ["itself", "another", "recurrent", "windows"])
def test_the_text_is_the_one_without(
    kind: str, files: dict[str, Path], plain: LLM, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, samplings = [prompt(i, 7 + 50 * i) for i in range(4)], list(SAMPLINGS.values())
    expected = [alone(plain, ids, 90, **each) for ids, each in zip(prompts, samplings, strict=True)]
    with LLM(tiny, threads=2, context=512, sequences=4, draft=str(files[kind])) as llm:
        always(llm.scheduler, monkeypatch)
        llm.scheduler.drafts.make_lookup = None
        singly = [all_of(llm, [ids], 90, [each])[0] for ids, each in zip(prompts, samplings, strict=True)]
        together = all_of(llm, prompts, 90, samplings)
        assert [tokens for tokens, _ in singly] == [tokens for tokens, _ in together] == expected
        if kind == "itself":
            # Drawn with the same numbers, every guess is right.
            assert all(end.accepted_tokens == end.drafted_tokens > 70 for _, end in singly)
        else:
            assert any(end.drafted_tokens > end.accepted_tokens for _, end in together)
        cache = llm.scheduler.drafts.model.model.cache  # type: ignore[union-attr]
        assert cache.free_pages == cache.n_pages and cache.states.free == cache.states.n_states


def test_a_pass_that_another_program_stopped_is_not_the_guesses_fault(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LLM(tiny, threads=2, context=512, draft=str(tiny)) as llm:
        drafts = llm.scheduler.drafts
        billed = list[float]()
        record = drafts.governor.record

        def watched(*of: Any) -> float:
            if of[-1]:
                billed.append(of[4])
            return record(*of)

        always(llm.scheduler, monkeypatch)
        monkeypatch.setattr(drafts.governor, "record", watched)
        guess, took = drafts.model.guess, list[float]()  # type: ignore[union-attr]

        def slow(wanted: Any, worth: Any) -> None:
            start = time.monotonic()
            guess(wanted, worth)
            time.sleep(0.2 if len(took) == 5 else 0)
            took.append(time.monotonic() - start)

        monkeypatch.setattr(drafts.model, "guess", slow)
        drafts.make_lookup = None
        llm.generate(prompt(1, 200), 60, ignore_eos=True)
        assert took[5] > 0.2 > 2 * billed[5]


def test_a_recurrent_model_may_draft_for_one_of_its_kind(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, prompts = files["recurrent"], [prompt(i, 30 + 40 * i) for i in range(3)]
    samplings = [VARIED | {"seed": i} for i in range(3)]
    with LLM(path, threads=2, context=512, sequences=3, draft="off") as llm:
        expected = [alone(llm, ids, 80, **each) for ids, each in zip(prompts, samplings, strict=True)]
    with LLM(path, threads=2, context=512, sequences=3, draft=str(path)) as llm:
        always(llm.scheduler, monkeypatch)
        llm.scheduler.drafts.make_lookup = None
        found = all_of(llm, prompts, 80, samplings)
        assert [tokens for tokens, _ in found] == expected
        assert all(end.accepted_tokens == end.drafted_tokens for _, end in found)
        # The draft model's cache has room for one whole text, not always for all three.
        assert sum(end.accepted_tokens for _, end in found) > 60


def test_a_cache_without_room_and_texts_beyond_its_context_have_no_guesses(
    tmp_path: Path, tiny: Path, plain: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = write_tiny(tmp_path / "short.gguf", format_name="Q8_0", context_length=96)
    prompts = [prompt(i, 40) for i in range(4)]
    expected = [alone(plain, ids, 90) for ids in prompts]
    with LLM(tiny, threads=2, context=512, sequences=4, draft=str(short)) as llm:
        always(llm.scheduler, monkeypatch)
        llm.scheduler.drafts.make_lookup = None
        found = all_of(llm, prompts, 90, [{}] * 4)
        assert [tokens for tokens, _ in found] == expected
        assert sum(end.drafted_tokens for _, end in found) > 0
        model = llm.scheduler.drafts.model
        assert model is not None and model.model.context == 96
        # It failed as a whole: nobody's text does.
        monkeypatch.setattr(model.model, "step", None)
        assert all_of(llm, prompts[:1], 90, [{}])[0][0] == expected[0]
        assert llm.scheduler.drafts.model is None


def test_texts_that_wait_while_the_draft_model_fails_are_written(
    tiny: Path, plain: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [prompt(i, 20) for i in range(2)]
    expected = [alone(plain, ids, 60) for ids in prompts]
    with LLM(tiny, threads=2, context=512, parallel=1, draft=str(tiny)) as llm:
        # Guesses of what stood before stay on, so that drafts do.
        always(llm.scheduler, monkeypatch)
        model = llm.scheduler.drafts.model
        assert model is not None
        step, passes = model.model.step, list[int]()

        def failing(*of: Any) -> Any:
            passes.append(1)
            if len(passes) > 3:
                raise OSError("it failed")
            return step(*of)

        monkeypatch.setattr(model.model, "step", failing)
        assert [tokens for tokens, _ in all_of(llm, prompts, 60, [{}] * 2)] == expected
        assert len(passes) == 4 and llm.scheduler.drafts.model is None and llm.scheduler.alive


def test_nothing_is_guessed_behind_the_draft_models_context(tmp_path: Path, tiny: Path) -> None:
    short = write_tiny(tmp_path / "short.gguf", format_name="Q8_0", context_length=96)
    with LLM(tiny, threads=2, context=512, draft=str(short)) as llm:
        model = llm.scheduler.drafts.model
        assert model is not None
        for n in range(80, 120):
            model.model.cache.forget()
            request = Request(prompt(1, n), 50, lambda event: None, Sampling())
            drafter = model.open(Generation(request, llm.tokenizer, llm.top_k, llm.context))
            room = max(0, 96 - n)
            assert len(drafter.chances(3)) == min(3, room)
            if room > 0:
                # Its end only; a text that may be read whole has room for all guesses then.
                assert drafter.catch_up(50) and drafter.catch_up(1000)
                model.guess([(drafter, min(MAX_PASSES, 96 - n + drafter._skipped))])
                assert drafter.guesses and (drafter._skipped == 0) == (n + MAX_PASSES <= 96)
            drafter.close()


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> list[local.Local]:
    """The models on this disk, of which any may draft for any."""
    models = list[local.Local]()
    monkeypatch.setattr(local, "inventory", lambda: local.Inventory(models))
    monkeypatch.setattr(draft_choice, "_LEAST_BYTES", 1)
    monkeypatch.setattr(draft_choice, "_MOST_SHARE", 2)
    return models


def test_a_model_that_nobody_named_takes_nothing_of_the_other(on_disk: list[local.Local], tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", context_length=8192)
    small = write_tiny(tmp_path / "small.gguf", context_length=8192)
    on_disk.append(local.Local(small, "a file"))
    full, its_full = least_and_full(path, None, 2)[1], least_and_full(small)[1]
    for memory, found in ((full, False), (full + its_full - 1, False), (full + its_full, True)):
        with LLM(path, threads=2, sequences=2, parallel=2, memory=memory) as llm:
            assert llm.context == 8192 and (llm.draft_model is not None) == found
            own = llm.draft_model.memory_bytes if llm.draft_model else 0
            assert llm.model.memory_bytes + own <= memory


def failing(*of: Any) -> None:
    raise SeventyError("its states are no numbers")


def test_a_model_that_nobody_named_and_that_cannot_be_loaded_is_left_out(
    on_disk: list[local.Local], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    broken = write_tiny(tmp_path / "broken.gguf", without=("blk.0.attn_q.weight",))
    on_disk.append(local.Local(broken, "a file"))
    with LLM(tiny, threads=2, context=256) as llm:
        assert llm.draft_path is None and not caplog.records
    # What cannot be seen before.
    monkeypatch.setattr(draft_choice, "check", lambda path, kv: None)
    with LLM(tiny, threads=2, context=256) as llm:
        assert llm.draft_model is None and llm.draft_path is None and not llm.scheduler.drafts.model
        assert "going on without the draft model" in caplog.text and "blk.0.attn_q.weight" in caplog.text
    # What is seen with its first step only.
    on_disk[:] = [local.Local(tiny, "a file")]
    with monkeypatch.context() as patch:
        patch.setattr(DraftModel, "read", failing)
        with LLM(tiny, threads=2, context=256) as llm:
            assert llm.draft_model is None and not llm.scheduler.drafts.model
        with pytest.raises(SeventyError, match="no numbers"):
            LLM(tiny, threads=2, context=256, draft=str(tiny))
    with pytest.raises(SeventyError, match=r"blk\.0\.attn_q\.weight"):
        LLM(tiny, threads=2, context=256, draft=str(broken))


def test_of_a_long_text_the_end_is_read_until_there_is_time_for_all(
    tiny: Path, plain: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = prompt(3, 300)
    expected = alone(plain, ids, 100)
    with LLM(tiny, threads=2, context=512, draft=str(tiny)) as llm:
        always(llm.scheduler, monkeypatch)
        drafts = llm.scheduler.drafts
        drafts.make_lookup = None
        assert drafts.model is not None
        read: list[int] = []
        reading = drafts.model.read

        def watched(sequence: Any, tokens: list[int]) -> None:
            read.append(len(tokens))
            reading(sequence, tokens)

        monkeypatch.setattr(drafts.model, "read", watched)
        monkeypatch.setattr(drafts.model, "reading_seconds", lambda rows, prompt_row: float(rows))
        for seconds, wanted in ((10.0, []), (50.0, [50]), (1000.0, [300])):
            monkeypatch.setattr(Governor, "for_reading", seconds)
            read.clear()
            drafts.model.model.cache.forget()
            ((tokens, end),) = all_of(llm, [ids], 100, [{}])
            assert tokens == expected and read[:1] == wanted and (end.drafted_tokens > 0) == bool(wanted)


def tokens_of(n: int, **changes: str) -> dict[str, Any]:
    texts = [f"t{i}" for i in range(n)]
    for place, text in changes.items():
        texts[int(place[1:])] = text
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": texts}


def test_tokens_are_mapped_by_how_they_are_written() -> None:
    same = Vocabularies(tokens_of(300), tokens_of(300), (300, 304))
    assert same.to_draft([0, 299]) == [0, 299]
    logits = np.arange(304, dtype=np.float32)
    assert np.array_equal(same.logits(logits), logits[:300])
    # A few more on either side, as padding or added tokens.
    more = Vocabularies(tokens_of(304), tokens_of(300), (304, 300))
    assert more.to_draft([5, 303]) == [5, 0]
    found = more.logits(logits[:300].copy())
    assert len(found) == 304 and np.array_equal(found[:300], logits[:300]) and np.isneginf(found[300:]).all()
    moved = Vocabularies(tokens_of(300, _298="t299", _299="t298", _7="added"), tokens_of(300), (300, 300))
    assert moved.to_draft([298, 299, 7, 8]) == [299, 298, 0, 8]
    found = moved.logits(logits[:300].copy())
    assert (found[298], found[299], found[8]) == (299, 298, 8) and np.isneginf(found[7])


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (tokens_of(300) | {"tokenizer.ggml.model": "llama"}, r"made in another way \(llama, not gpt2\)"),
        (tokens_of(300, **{f"_{i}": f"other {i}" for i in range(100, 120)}), "20 of 300 tokens are none of its 300: "
         "token 100 is 't100', and 'other 100' there"),
        (tokens_of(200), "100 of 300 tokens are none of its 200: token 200 is 't200', and none there"),
    ],
)  # fmt: skip
def test_other_vocabularies_are_refused_with_the_reason(draft: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(SeventyError, match=reason):
        Vocabularies(tokens_of(300), draft, (300, 300))


def test_a_refusal_names_both_files(tiny: Path, smollm2: Path) -> None:
    with pytest.raises(SeventyError, match=r"smollm2.* cannot draft for .*tiny.*: .*tokens"):
        compare(tiny, smollm2)
    with pytest.raises(SeventyError, match="cannot draft for"):
        LLM(tiny, draft=str(smollm2))
