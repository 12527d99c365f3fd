"""A model's own block of multi-token prediction drafts: texts are those without, whatever happens to them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf
from seventy import LLM, SeventyError
from seventy.engine.drafts import Drafts
from seventy.engine.footprint import least_and_full
from seventy.engine.model import Aborted, Model, Segment, Step
from seventy.engine.multi_token import BlockDrafter
from seventy.engine.passes import Counts, PassDrafter, Worth
from seventy.engine.request import Finished
from tests.engine.test_drafts import SAMPLINGS, always
from tests.engine.test_scheduler import Asked, alone, prompt, together
from tests.support.families import deepseek2, glm4moe, qwen35
from tests.support.families.judge import IDS

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "qwen35": (qwen35, {"layers": 2, "interval": 2}),
    "glm4moe": (glm4moe, {"layers": 2}),
    "deepseek2": (deepseek2, {"layers": 2}),
}


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, corners = KINDS[request.param]
    written: Path = family.write(tmp_path_factory.mktemp("models") / f"{request.param}.gguf", nextn=1, **corners)
    return written


@pytest.fixture(scope="module")
def plain(path: Path) -> Iterator[LLM]:
    with LLM(path, threads=1, context=256, sequences=4, draft="off") as llm:
        yield llm


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen35.write(tmp_path_factory.mktemp("models") / "small.gguf", layers=2, interval=2, nextn=1)


class Oracle:
    """Lets the block guess what will be written, but for every fourth guess, whatever it expects."""

    def __init__(
        self, patch: pytest.MonkeyPatch, texts: list[list[int]], drafter: type[PassDrafter] = BlockDrafter
    ) -> None:
        self.texts, self.asked = texts, 0
        patch.setattr(drafter, "_ours", lambda drafter, logits: self.logits(drafter, logits))

    def logits(self, drafter: PassDrafter, logits: np.ndarray) -> np.ndarray:
        self.asked += 1
        known = [*drafter._generation.tokens, *drafter.guesses]
        text = next((text for text in self.texts if text[: len(known)] == known), known)
        if self.asked % 4 and len(text) > len(known):
            logits[:] = -np.inf
            logits[text[len(known)]] = 0
        return logits


def guess_always(llm: LLM, patch: pytest.MonkeyPatch) -> None:
    """Let steps carry all guesses of the block and no others, however often they were wrong."""
    always(llm.scheduler, patch)
    patch.setattr(Counts, "chances", lambda counts, most: [1.0] * most)
    patch.setattr(Drafts, "_worth", lambda drafts, *of: Worth())
    llm.scheduler.drafts.make_lookup = None


def all_of(
    llm: LLM, patch: pytest.MonkeyPatch, prompts: list[list[int]], n: int, samplings: list[dict[str, Any]]
) -> list[list[int]]:
    asked = together(
        llm.scheduler,
        patch,
        [
            {"ids": ids, "max_tokens": n, "user": str(i), "sampling": each}
            for i, (ids, each) in enumerate(zip(prompts, samplings, strict=True))
        ],
    )
    ends = [each.end() for each in asked]
    assert all(isinstance(end, Finished) and end.written_tokens == n for end in ends)
    return [each.tokens for each in asked]


def assert_same_texts(llm: LLM, plain: LLM, patch: pytest.MonkeyPatch, drafter: type = BlockDrafter) -> int:
    """Compare texts: with guesses hardly ever right and with right ones, preempted, and over turns.

    Return how much of the second turn was known.
    """
    prompts, samplings = [prompt(i, 33 + 13 * i) for i in range(4)], list(SAMPLINGS.values())
    expected = [alone(plain, ids, 40, **each) for ids, each in zip(prompts, samplings, strict=True)]
    guess_always(llm, patch)
    assert all_of(llm, patch, prompts, 40, samplings) == expected
    counts = llm.scheduler.drafts.counts["model"]
    assert counts[0] > 40 and counts[1] < counts[0] // 4
    Oracle(patch, [[*ids, *text] for ids, text in zip(prompts, expected, strict=True)], drafter)
    before = counts[1]
    assert all_of(llm, patch, prompts, 40, samplings) == expected
    assert counts[1] - before > 10
    # Three or four begin in the 8 pages of the cache, and those three would end with 10: some went on later.
    assert llm.scheduler.statistics.preempted > 0
    # Another turn goes on from what was written and drafted.
    turns = [*prompts[0], *alone(llm, prompts[0], 40), 1, 2, 3]
    again = Asked(llm.scheduler, turns, 20)
    cached = again.end().cached_tokens
    assert again.tokens == alone(plain, turns, 20)
    return cached


def test_the_text_is_the_one_without(path: Path, plain: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM(path, threads=1, context=256, draft="mtp") as llm:
        assert assert_same_texts(llm, plain, monkeypatch) == 33 + 39
        cache = llm.model.cache
        assert (cache.free_pages, cache.states.free) == (cache.n_pages, cache.states.n_states)


def test_what_was_guessed_leaves_no_trace_in_what_is_expected(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block expects after a text that it drafted to the bit what it expects after one that it only read."""
    ids = prompt(1, 50)
    with LLM(small, threads=1, context=256, draft="mtp") as llm:
        guess_always(llm, monkeypatch)
        text = [*ids, *alone(llm, ids, 40)]
        Oracle(monkeypatch, [text])
        assert alone(llm, ids, 40) == text[50:]
        model, found = llm.model, []
        for forget in (False, True):
            if forget:
                model.cache.forget()
            sequence = model.new_sequence()
            start = sequence.open(text[:-1])
            assert start == (0 if forget else 89) and (sequence.predicted == 0) == forget
            if forget:
                sequence.reserve(89)
                model.step([Segment(0, text[:-1], 0, sequence.pages, sequence.states)])
                sequence.commit(text[:-1])
            at = sequence.predicted
            sequence.reserve(90, 1)
            found.append(model.predict([Segment(at, text[at:], 1, sequence.pages)]).logits[0].copy())
            sequence.close()
        assert np.array_equal(*found)


def test_aborted_texts_and_their_passes_leave_nothing(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [prompt(i, 30 + 20 * i) for i in range(4)]
    with LLM(small, threads=1, context=256, draft="off") as llm:
        expected = [alone(llm, ids, 20) for ids in prompts]
    with LLM(small, threads=1, context=256, draft="mtp") as llm:
        guess_always(llm, monkeypatch)
        Oracle(monkeypatch, [[*ids, *text] for ids, text in zip(prompts, expected, strict=True)])
        for turn in range(3):
            asked = [Asked(llm.scheduler, prompts[(turn + i) % 4], 20) for i in range(12)]
            for each in asked[turn % 3 :: 3]:
                if turn:
                    each.next()
                llm.scheduler.cancel(each.request)
            for i, each in enumerate(asked):
                reason = each.end().reason
                assert each.tokens == expected[(turn + i) % 4] or (reason == "cancelled" and i % 3 == turn % 3)
        cache = llm.model.cache
        assert (cache.free_pages, cache.states.free) == (cache.n_pages, cache.states.n_states)


def test_a_block_that_gives_no_numbers_or_fails_fails_nobody(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = prompt(1, 30)
    with LLM(small, threads=1, context=256, draft="off") as llm:
        expected = alone(llm, ids, 40)
    for wrong in (None, OSError("it failed"), Aborted()):
        with LLM(small, threads=1, context=256, draft="mtp") as llm, monkeypatch.context() as patch:
            guess_always(llm, patch)
            passes = Disturbed(llm.model, wrong)
            patch.setattr(llm.model, "predict", passes)
            assert alone(llm, ids, 40) == expected
            # An aborted pass is no fault of the block: it is asked again.
            assert passes.count > 4 if isinstance(wrong, Aborted) else passes.count == 4
            assert (llm.scheduler.drafts.model is None) == isinstance(wrong, OSError)


class Disturbed:
    """Passes of the block, of which the fourth gives no numbers, or raises what is `wrong`."""

    def __init__(self, model: Model, wrong: Exception | None) -> None:
        self._predict, self._wrong, self.count = model.predict, wrong, 0

    def __call__(self, batch: Sequence[Segment]) -> Step:
        self.count += 1
        step = self._predict(batch)
        if self.count == 4 and self._wrong:
            raise self._wrong
        return replace(step, bad=frozenset({0})) if self.count == 4 else step


@pytest.mark.parametrize(("worth", "most"), [(Worth(), 4), (Worth(0.4, 0.6), 2), (Worth(0.6, 0.6), 1), (Worth(1.1), 0)])
def test_guesses_that_are_not_certain_enough_are_left_out(
    worth: Worth, most: int, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_certain(drafter: BlockDrafter, logits: np.ndarray) -> np.ndarray:
        # The first guess is certain, of the others one of two is as likely as the other.
        logits[:] = -np.inf
        logits[[7, 9][: 1 + bool(drafter.guesses)]] = 0
        return logits

    with LLM(small, threads=1, context=256, draft="mtp") as llm:
        guess_always(llm, monkeypatch)
        monkeypatch.setattr(Drafts, "_worth", lambda drafts, *of: worth)
        monkeypatch.setattr(BlockDrafter, "_ours", half_certain)
        guesses, propose = list[int](), llm.scheduler.drafts.propose
        monkeypatch.setattr(llm.scheduler.drafts, "propose", lambda *of: noted(guesses, propose(*of)))
        llm.generate(IDS[:20], 20, ignore_eos=True)
    assert set(guesses[:-4]) == {most}


def noted(numbers: list[int], guesses: list[list[int]]) -> list[list[int]]:
    numbers += [len(each) for each in guesses]
    return guesses


def test_nothing_of_the_block_runs_while_nothing_is_guessed(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM(small, threads=1, context=256, draft="mtp") as llm:
        monkeypatch.setattr(llm.scheduler.drafts.governor, "ready", lambda texts: False)
        monkeypatch.setattr(llm.model, "predict", None)
        assert len(llm.generate(IDS[:50], 20, ignore_eos=True).token_ids) == 20


def test_files_without_the_block(tmp_path: Path, small: Path, caplog: pytest.LogCaptureFixture) -> None:
    without = glm4moe.write(tmp_path / "without.gguf", layers=2)
    with pytest.raises(SeventyError, match=r"--draft mtp\): the file has none; take one with it"):
        LLM(without, draft="mtp")
    declares = rewritten(small, tmp_path / "declares.gguf", lambda name: not name.startswith("blk.2."))
    with pytest.raises(SeventyError, match="the file names 1 and lacks its tensors"):
        LLM(declares, draft="mtp")
    lacks = rewritten(small, tmp_path / "lacks.gguf", lambda name: name != "blk.2.nextn.hnorm.weight")
    for path, said in ((declares, "it does not draft"), (lacks, "blk.2.nextn.hnorm.weight")):
        with LLM(path, threads=1, context=64) as llm:
            assert not llm.model.predicts and len(llm.generate(IDS[:9], 4, ignore_eos=True).token_ids) == 4
        assert said in caplog.text
    alone = rewritten(small, tmp_path / "alone.gguf", lambda name: not name.startswith(("blk.0.", "blk.1.")))
    for draft in ("auto", "off"):
        with pytest.raises(SeventyError, match="block of multi-token prediction alone, not the model"):
            LLM(alone, draft=draft)


def test_a_block_that_has_no_room_is_left_out(small: Path) -> None:
    least, without = (least_and_full(small, 256, mtp=mtp)[0] for mtp in (True, False))
    assert without < least
    for memory, found in ((least, True), (least - 1, False)):
        with LLM(small, threads=1, context=256, memory=memory) as llm:
            assert llm.model.predicts == found and llm.model.memory_bytes <= memory


def rewritten(path: Path, to: Path, keeps: Callable[[str], bool]) -> Path:
    """The file with these of its tensors."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(str(to), "qwen35")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        if keeps(tensor.name):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to
