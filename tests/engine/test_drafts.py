"""Drafts: texts with them are the texts without, to the bit, and they pay or are not there."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.engine.drafts import Drafter, Drafts
from seventy.engine.governor import MAX_DRAFT, Governor, Offer
from seventy.engine.request import TextDelta
from seventy.engine.scheduler import Scheduler
from seventy.gguf.file import GGUF
from seventy.text.grammar import Grammars
from tests.engine.test_scheduler import VARIED, Asked, alone, prompt, together
from tests.support.families import gpt_oss
from tests.support.tiny import write_tiny

SAMPLINGS = {
    "greedy": {},
    "0.7": {"temperature": 0.7, "seed": 1},
    "1.0": {"temperature": 1.0, "seed": 2, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "penalties": {"temperature": 1.0, "seed": 3, "repeat_penalty": 1.3, "presence_penalty": 0.5},
}


class Told:
    """A drafter that guesses what `next_tokens` says comes after so many tokens."""

    def __init__(self, tokens: Sequence[int], next_tokens: Callable[[int, int], list[int]]) -> None:
        self._tokens, self._next_tokens = tokens, next_tokens

    def observe(self) -> None:
        pass

    def chances(self, most: int) -> list[float]:
        return [1.0] * most

    def propose(self, n: int) -> list[int]:
        return self._next_tokens(len(self._tokens), n)


class Texts:
    """What is written without drafts after the prompts; drafters that know it."""

    def __init__(self) -> None:
        self.whole: list[list[int]] = []
        self._random = random.Random(0)

    def _at(self, tokens: Sequence[int]) -> list[int]:
        # A prompt may be of several texts: then the drafter is right for one of them.
        return next((text for text in self.whole if text[: len(tokens)] == list(tokens)), list(tokens))

    def right(self, tokens: Sequence[int], user: str) -> Drafter:
        text = self._at(tokens)
        return Told(tokens, lambda at, n: (text[at : at + n] + [0] * n)[:n])

    def wrong(self, tokens: Sequence[int], user: str) -> Drafter:
        text = self._at(tokens)
        return Told(tokens, lambda at, n: [(token + 1) % 256 for token in (text[at : at + n] + [0] * n)[:n]])

    def mixed(self, tokens: Sequence[int], user: str) -> Drafter:
        text, of = self._at(tokens), self._random

        def guess(at: int, n: int) -> list[int]:
            known = (text[at : at + n] + [0] * n)[:n]
            return [token if of.random() < 0.7 else of.randrange(256) for token in known]

        return Told(tokens, guess)


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> Iterator[LLM]:
    with LLM(tiny, threads=2, context=512, sequences=4, draft="off") as llm:
        yield llm


@pytest.fixture
def scheduler(loaded: LLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    loaded.model.cache.forget()
    scheduler = Scheduler(loaded.model, loaded.tokenizer, loaded.top_k, parallel=4, drafts=Drafts())
    always(scheduler, monkeypatch)
    yield scheduler
    scheduler.close()


def always(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let steps carry every draft there is, whether it pays or not."""

    def share(offers: Sequence[Offer], room: int, pass_seconds: float = 0.0) -> list[int]:
        return [min(len(each.chances), room // len(offers)) for each in offers]

    governor = scheduler.drafts.governor
    for _ in range(3):
        governor.record(1, 1, 1, 1.0)
    monkeypatch.setattr("seventy.engine.drafts._READING_SHARE", 1e9)
    monkeypatch.setattr(governor, "share", share)
    monkeypatch.setattr(governor, "ready", lambda texts: texts > 0)
    monkeypatch.setattr(Governor, "for_reading", 1e9)


@pytest.mark.parametrize("kind", ["right", "wrong", "mixed", "lookup"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_text_is_the_one_without_drafts(name: str, kind: str, loaded: LLM, scheduler: Scheduler) -> None:
    sampling, texts = SAMPLINGS[name], Texts()
    prompts = [prompt(i, 7 + 13 * i) for i in range(6)]
    expected = [alone(loaded, ids, 90, **sampling) for ids in prompts]
    texts.whole = [ids + tokens for ids, tokens in zip(prompts, expected, strict=True)]
    if kind != "lookup":
        scheduler.drafts.make_lookup = getattr(texts, kind)
    loaded.model.cache.forget()
    for ids, tokens in zip(prompts, expected, strict=True):
        asked = Asked(scheduler, ids, 90, sampling=sampling)
        end = asked.end()
        assert asked.tokens == tokens
        assert end.written_tokens == 90
        if kind == "right":
            # The first token is the prompt's, of the others a step writes 1 + MAX_DRAFT.
            assert end.accepted_tokens == end.drafted_tokens == 89 - -(-89 // (1 + MAX_DRAFT))
        elif kind == "wrong":
            assert end.drafted_tokens > 80 and end.accepted_tokens == 0
        elif kind == "mixed":
            assert 0 < end.accepted_tokens < end.drafted_tokens
    # What was committed is what was read: the same text goes on from it, as far as it goes without drafts.
    again = Asked(scheduler, [*prompts[0], *expected[0]], 5, sampling=sampling)
    assert again.end().cached_tokens == len(prompts[0]) + 89


@pytest.mark.parametrize("kind", ["right", "mixed", "lookup"])
def test_under_load_and_without_pages_too(kind: str, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, prompts = Texts(), [prompt(i, 20 + 3 * i) for i in range(6)]
    samplings = [{} if i % 3 else VARIED | {"seed": i} for i in range(6)]
    with LLM(tiny, threads=2, context=256, sequences=2, draft="off") as llm:
        expected = [alone(llm, ids, 200, **each) for ids, each in zip(prompts, samplings, strict=True)]
        texts.whole = [ids + tokens for ids, tokens in zip(prompts, expected, strict=True)]
        llm.model.cache.forget()
        scheduler = Scheduler(llm.model, llm.tokenizer, llm.top_k, parallel=6, drafts=Drafts())
        always(scheduler, monkeypatch)
        if kind != "lookup":
            scheduler.drafts.make_lookup = getattr(texts, kind)
        try:
            asked = together(
                scheduler,
                monkeypatch,
                [
                    {"ids": ids, "max_tokens": 200, "user": str(i), "sampling": samplings[i]}
                    for i, ids in enumerate(prompts)
                ],
            )
            ends = [each.end() for each in asked]
            assert scheduler.statistics.preempted > 0
            assert llm.model.cache.free_pages == llm.model.cache.n_pages
        finally:
            scheduler.close()
        assert [each.tokens for each in asked] == expected
        assert sum(end.accepted_tokens for end in ends) == scheduler.statistics.accepted_tokens > 0


def test_stops_ends_grammars_and_scores_are_those_without(loaded: LLM, scheduler: Scheduler) -> None:
    grammars, ids = Grammars(loaded.tokenizer), prompt(2, 30)
    varied = VARIED | {"seed": 5}
    text = loaded.detokenize(alone(loaded, ids, 60, **varied))
    stop = text[20:22]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "bb": {"type": "boolean"}},
              "required": ["a", "bb"], "additionalProperties": False}  # fmt: skip
    cases: list[dict[str, object]] = [
        {"stops": [stop]},
        {"constraint": grammars.json_schema(schema)},
        {"constraint": grammars.regex("(ab|c){3,40}"), "ignore_eos": False},
        {"top_logprobs": 3, "logit_bias": {77: 3.0, 78: -2.0}},
        {"ignore_eos": False, "logit_bias": {257: 4.0}},
    ]
    off = Scheduler(loaded.model, loaded.tokenizer, loaded.top_k)
    try:
        for case in cases:
            def ask(of: Scheduler, case: dict[str, object] = case) -> Asked:
                grammar = case.get("constraint")
                own = case | {"constraint": grammar.copy()} if grammar else case  # type: ignore[attr-defined]
                return Asked(of, ids, 60, sampling=varied, **own)

            plain = ask(off)
            end = plain.end()
            texts = Texts()
            texts.whole = [ids + plain.tokens]
            for drafter in (texts.right, texts.mixed, texts.wrong):
                scheduler.drafts.make_lookup = drafter
                drafted = ask(scheduler)
                other = drafted.end()
                assert pieces(drafted) == pieces(plain)
                assert (other.reason, other.cut_by, other.end_token) == (end.reason, end.cut_by, end.end_token)
                assert other.written_tokens == end.written_tokens
    finally:
        off.close()


def pieces(asked: Asked) -> list[TextDelta]:
    return [event for event in asked.seen if isinstance(event, TextDelta)]


def test_windows_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gpt_oss.write(tmp_path / "model.gguf")
    with LLM(path, threads=2, context=512, sequences=2, draft="off") as llm:
        texts, prompts = Texts(), [prompt(i, 40 + 90 * i) for i in range(3)]
        expected = [alone(llm, ids, 180) for ids in prompts]
        texts.whole = [ids + tokens for ids, tokens in zip(prompts, expected, strict=True)]
        scheduler = Scheduler(llm.model, llm.tokenizer, llm.top_k, drafts=Drafts())
        always(scheduler, monkeypatch)
        scheduler.drafts.make_lookup = texts.mixed
        try:
            llm.model.cache.forget()
            asked = [Asked(scheduler, ids, 180) for ids in prompts]
            assert all(each.end().accepted_tokens > 0 for each in asked)
        finally:
            scheduler.close()
        assert [each.tokens for each in asked] == expected


def test_a_draft_that_is_no_number_fails_nobody(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", format_name="Q8_0", tied=False)
    with GGUF(path) as gguf:
        info = gguf.tensors["token_embd.weight"]
    with path.open("r+b") as file:
        file.seek(info.offset + 200 * info.nbytes // 259)
        file.write(np.float16(np.nan).tobytes())
    with LLM(path, threads=2, context=512) as llm, pytest.MonkeyPatch.context() as patch:
        bias = {200: -1000.0}
        plain = Asked(llm.scheduler, prompt(1, 9), 20, logit_bias=bias)
        plain.end()
        always(llm.scheduler, patch)
        llm.scheduler.drafts.make_lookup = lambda tokens, user: Told(tokens, lambda at, n: [200] * n)
        drafted = Asked(llm.scheduler, prompt(1, 9), 20, logit_bias=bias)
        assert drafted.end().written_tokens == 20
        assert drafted.tokens == plain.tokens


def test_prompts_in_the_step_leave_no_room_for_drafts(loaded: LLM, scheduler: Scheduler) -> None:
    scheduler.drafts.make_lookup = lambda tokens, user: Told(tokens, lambda at, n: [0] * n)
    seen: list[tuple[int, ...]] = []
    plan = scheduler._plan

    def watched() -> object:
        batch = plan()
        if any(not task.decoding for task, _ in batch):
            seen.append(tuple(n for task, n in batch if task.decoding))
        return batch

    scheduler._plan = watched  # type: ignore[method-assign, assignment]
    first = Asked(scheduler, prompt(1, 8), 100)
    while not first.tokens:
        first.next()
    Asked(scheduler, prompt(2, 300), 5).end()
    first.end()
    assert any(seen) and all(rows in ((), (1,)) for rows in seen)


def test_an_unknown_kind_of_draft_is_refused(tiny: Path) -> None:
    with pytest.raises(SeventyError, match="one of auto, off, lookup, mtp, or a model's name or file, not 'magic'"):
        LLM(tiny, draft="magic")


def test_smollm2_copies_and_writes_as_without(smollm2: Path) -> None:
    text = "def area(width, height):\n    return width * height\n\n\ndef volume(a, b, c):\n    return area(a, b) * c\n"
    with LLM(smollm2, threads=2, context=1024) as llm, LLM(smollm2, threads=2, context=1024, draft="off") as off:
        for ids, sampling in (
            (f"{text}\n{text}\n{text[:40]}", {}),
            (f"{text}\n{text}\n{text[:40]}", {"temperature": 0.7, "seed": 1}),
            ("Once upon a time", {"temperature": 1.0, "seed": 2}),
        ):
            with pytest.MonkeyPatch.context() as patch:
                always(llm.scheduler, patch)
                drafted = llm.generate(ids, 60, **sampling)
            plain = off.generate(ids, 60, **sampling)
            assert (drafted.text, drafted.token_ids) == (plain.text, plain.token_ids)
            assert plain.timings.drafted_tokens == 0
        # Of a copy nearly every guess is right.
        copy = llm.generate(f"{text}\n{text}\n{text[:40]}", 30)
        assert copy.timings.accepted_tokens <= copy.timings.drafted_tokens
