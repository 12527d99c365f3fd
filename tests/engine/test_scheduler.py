import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seventy import LLM
from seventy.engine.request import Event, Failed, Finished, Progress, QueueFull, Request, TextDelta, TooLong
from seventy.engine.sampler import Sampling
from seventy.engine.scheduler import Scheduler
from seventy.gguf.file import GGUF
from tests.support.tiny import write_tiny

VARIED = {"temperature": 3.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


class Asked:
    """A request and what came of it."""

    def __init__(self, scheduler: Scheduler, ids: list[int], max_tokens: int | None, **options: object) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.tokens: list[int] = []
        self.seen: list[Event] = []
        sampling = Sampling(**options.pop("sampling", {}))  # type: ignore[arg-type]
        settings = {"ignore_eos": True} | options
        self.request = Request(ids, max_tokens, self.events.put, sampling, **settings)  # type: ignore[arg-type]
        scheduler.submit(self.request)

    def next(self) -> Event:
        event = self.events.get(timeout=60)
        self.seen.append(event)
        if isinstance(event, TextDelta):
            self.tokens += event.tokens
        return event

    def end(self) -> Finished:
        while not isinstance(event := self.next(), Finished):
            assert not isinstance(event, Failed), event
        return event


def together(scheduler: Scheduler, patch: pytest.MonkeyPatch, asked: list[dict[str, Any]]) -> list[Asked]:
    """Requests of which none is written before all have come."""
    going, step = threading.Event(), scheduler.model.step
    with patch.context() as until_all_came:
        until_all_came.setattr(scheduler.model, "step", lambda *of: (going.wait(60), step(*of))[1])
        requests = [Asked(scheduler, **each) for each in asked]
        going.set()
    return requests


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> Iterator[LLM]:
    with LLM(tiny, threads=2, context=512, sequences=4) as llm:
        yield llm


@pytest.fixture
def scheduler(loaded: LLM) -> Iterator[Scheduler]:
    loaded.model.cache.forget()
    scheduler = Scheduler(loaded.model, loaded.tokenizer, loaded.top_k, parallel=4, queue=8)
    yield scheduler
    scheduler.close()
    assert loaded.model.cache.free_pages == loaded.model.cache.n_pages


def prompt(seed: int, n: int) -> list[int]:
    return [(seed * 7919 + i * i * 31) % 256 for i in range(n)]


def alone(llm: LLM, ids: list[int], max_tokens: int, **sampling: object) -> list[int]:
    llm.model.cache.forget()
    tokens = llm.generate(ids, max_tokens, ignore_eos=True, **sampling).token_ids
    return tokens


def test_texts_under_load_are_the_texts_alone(loaded: LLM, scheduler: Scheduler) -> None:
    settings = [
        (prompt(i, 20 + 37 * i), 10 + 5 * i, VARIED | {"seed": i} if i % 2 else {}) for i in range(8)
    ]
    asked = [
        Asked(scheduler, ids, n, sampling=sampling, user=f"u{i % 3}") for i, (ids, n, sampling) in enumerate(settings)
    ]
    for each in asked:
        assert each.end().reason == "length"
    scheduler.close()
    for each, (ids, n, sampling) in zip(asked, settings, strict=True):
        assert each.tokens == alone(loaded, ids, n, **sampling)


def test_running_answers_go_on_while_a_prompt_is_read(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler._budget, "prompt_rows", lambda answer_rows: 16)
    first = Asked(scheduler, prompt(1, 8), 200)
    while not first.tokens:
        first.next()
    second = Asked(scheduler, prompt(2, 300), 5)
    second.end()
    # Many steps, each with a token of the first.
    steps = sum(isinstance(event, Progress) for event in second.seen)
    assert steps > 5
    scheduler.cancel(first.request)
    assert first.end().reason == "cancelled"
    assert len(first.tokens) >= steps


def test_a_conversation_is_not_read_twice(scheduler: Scheduler) -> None:
    ids = prompt(3, 200)
    first = Asked(scheduler, ids, 20)
    assert first.end().cached_tokens == 0
    # The last token was written but never read.
    second = Asked(scheduler, [*ids, *first.tokens, 1, 2, 3], 5)
    assert second.end().cached_tokens == 200 + 19
    assert scheduler.statistics.cached_tokens == 219


def test_prompts_alike_that_come_together_are_read_once(scheduler: Scheduler) -> None:
    ids = prompt(4, 300)
    asked = [Asked(scheduler, ids, 5) for _ in range(4)]
    ends = [each.end() for each in asked]
    assert ends[0].cached_tokens == 0
    assert all(end.cached_tokens >= 288 for end in ends[1:])
    assert len({tuple(each.tokens) for each in asked}) == 1


def test_what_has_not_begun_can_be_taken_elsewhere(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    going, step = threading.Event(), scheduler.model.step
    monkeypatch.setattr(scheduler.model, "step", lambda *batch: (going.wait(60), step(*batch))[1])
    first = Asked(scheduler, prompt(0, 5), 3)
    while not scheduler._batch:
        pass
    asked = [Asked(scheduler, prompt(i, 5), 3, user=f"u{i % 2}") for i in range(1, 5)]
    assert scheduler.take_back() == [each.request for each in asked] and scheduler.take_back() == []
    going.set()
    first.end()
    assert not scheduler.busy and all(each.events.empty() for each in asked)
    # Here, or at a model that was loaded later; its time in queues goes on.
    for each in asked:
        scheduler.submit(each.request)
    waited = [each.end().queued_seconds for each in asked]
    assert min(waited) > 0 and [len(each.tokens) for each in asked] == [3] * 4


def test_the_queue_has_an_end_and_room_for_others(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    going, step = threading.Event(), scheduler.model.step

    def held(*of: Any) -> object:
        going.wait(60)
        return step(*of)

    monkeypatch.setattr(scheduler.model, "step", held)
    asked = [Asked(scheduler, prompt(i, 5), 3, user="greedy") for i in range(1)]
    while not scheduler._batch:
        pass
    asked += [Asked(scheduler, prompt(i, 5), 3, user="greedy") for i in range(1, 5)]
    with pytest.raises(QueueFull, match=r"4 requests are waiting, 4 of them yours; try again in \d+ s"):
        Asked(scheduler, prompt(9, 5), 3, user="greedy")
    asked += [Asked(scheduler, prompt(i, 5), 3, user="modest") for i in range(5, 9)]
    with pytest.raises(QueueFull) as full:
        Asked(scheduler, prompt(9, 5), 3, user="third")
    assert full.value.retry_after >= 1
    order: list[str] = []
    start = scheduler._may_start

    def seen(task: object) -> bool:
        order.append(task.request.user)  # type: ignore[attr-defined]
        return start(task)  # type: ignore[arg-type]

    monkeypatch.setattr(scheduler, "_may_start", seen)
    going.set()
    for each in asked:
        each.end()
    # One of the greedy one ran already: the other comes first, then both in turn.
    assert order[:3] == ["modest", "greedy", "modest"]


def test_what_can_never_fit_is_told_so(scheduler: Scheduler) -> None:
    with pytest.raises(TooLong, match="the prompt has 512 tokens, and the context of 512 has no room for an answer"):
        Asked(scheduler, prompt(1, 512), 13)


def test_more_than_there_is_room_for_ends_for_want_of_it(scheduler: Scheduler) -> None:
    end = Asked(scheduler, prompt(1, 500), 13).end()
    assert (end.reason, end.cut_by, end.written_tokens) == ("length", "context", 12)
    end = Asked(scheduler, prompt(1, 500), 12).end()
    assert (end.reason, end.cut_by, end.written_tokens) == ("length", "max_tokens", 12)
    assert Asked(scheduler, prompt(1, 500), None).end().cut_by == "context"


def test_time_begins_when_the_queue_is_left_and_its_end_is_a_length(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four fill the scheduler with a hundred steps: the last one waits longer than its time, which has not begun.
    step = scheduler.model.step
    monkeypatch.setattr(scheduler.model, "step", lambda *of: (time.sleep(0.003), step(*of))[1])
    others = [Asked(scheduler, prompt(i, 5), 100, user=str(i), sampling=VARIED) for i in range(4)]
    waiting = Asked(scheduler, prompt(5, 5), 2, max_seconds=30.0)
    late = Asked(scheduler, prompt(6, 5), None, max_seconds=0.25)
    end = late.end()
    assert (end.reason, end.cut_by) == ("length", "max_seconds")
    assert end.written_tokens >= 1 and end.queued_seconds > 0.25
    assert waiting.end().cut_by == "max_tokens"
    assert all(each.end().written_tokens == 100 for each in others)


def test_cancelling_frees_everything_at_once(loaded: LLM, scheduler: Scheduler) -> None:
    asked = [Asked(scheduler, prompt(i, 100), 400, user=str(i)) for i in range(6)]
    while not asked[0].tokens:
        asked[0].next()
    for each in asked:
        scheduler.cancel(each.request)
    assert {each.end().reason for each in asked} == {"cancelled"}
    assert loaded.model.cache.free_pages == loaded.model.cache.n_pages
    assert not scheduler.busy
    assert Asked(scheduler, prompt(1, 5), 3).end().reason == "length"


def test_cancelling_the_only_one_stops_its_step(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    aborted = []
    entered, go, step = threading.Event(), threading.Event(), scheduler.model.step

    def held(*of: Any) -> object:
        entered.set()
        go.wait(60)
        return step(*of)

    monkeypatch.setattr(scheduler.model, "abort", lambda: aborted.append(1))
    monkeypatch.setattr(scheduler.model, "step", held)
    asked = [Asked(scheduler, prompt(1, 100), 5)]
    entered.wait(60)
    asked.append(Asked(scheduler, prompt(2, 100), 5))
    scheduler.cancel(asked[1].request)
    scheduler.cancel(asked[0].request)
    assert aborted
    go.set()
    for each in asked:
        assert each.end().reason == "cancelled"
    # Cancelled before the step began, which then never did, though the flag is cleared where steps begin.
    assert scheduler.statistics.steps == 0


def test_without_room_the_youngest_waits_and_loses_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM(tiny, threads=2, context=256, sequences=2) as llm:
        scheduler = Scheduler(llm.model, llm.tokenizer, llm.top_k, parallel=6, queue=8)
        try:
            asked = [
                {"ids": prompt(i, 20), "max_tokens": 200, "user": str(i), "sampling": VARIED | {"seed": i}}
                for i in range(6)
            ]
            written = together(scheduler, monkeypatch, asked)
            for each in written:
                assert each.end().written_tokens == 200
            assert scheduler.statistics.preempted > 0
        finally:
            scheduler.close()
        for i, each in enumerate(written):
            assert each.tokens == alone(llm, prompt(i, 20), 200, **VARIED, seed=i)


class Watched:
    """A constraint whose first mask is there when `ready` says so; without `stays`, the next ones are fast."""

    def __init__(self, stays: bool) -> None:
        self.stays, self.ready, self.prepared, self.inside = stays, threading.Event(), 0, False
        self.wrong: list[str] = []

    @property
    def slow(self) -> bool:
        return self.stays or not self.prepared

    def prepare(self) -> None:
        self._alone("prepare")
        self.inside, self.prepared = True, self.prepared + 1
        self.ready.wait(10)
        self.inside = False

    def mask(self, logits: object) -> None:
        self._alone("mask")

    def accept(self, token: int) -> None:
        self._alone("accept")

    def _alone(self, what: str) -> None:
        if self.inside:
            self.wrong.append(what)


@pytest.mark.parametrize("stays", [True, False])
def test_the_mask_of_a_text_that_gave_up_its_pages_is_made_once(
    stays: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LLM(tiny, threads=2, context=256, sequences=2, draft="off") as llm:
        constraint, hold, held = Watched(stays), llm.scheduler._hold, list[object]()

        def watched(*of: Any) -> None:
            hold(*of)
            held.append(of)
            if len(held) == 2:
                constraint.ready.set()

        monkeypatch.setattr(llm.scheduler, "_hold", watched)
        asked = [{"ids": prompt(i, 20), "max_tokens": 200, "user": str(i)} for i in range(2)]
        asked.append({"ids": prompt(7, 100), "max_tokens": 3, "user": "x", "constraint": constraint})
        for each in together(llm.scheduler, monkeypatch, asked):
            each.end()
        assert llm.scheduler.statistics.preempted > 0
        assert not constraint.wrong and constraint.prepared == (3 if stays else 1)


def test_one_request_that_fails_leaves_the_others(scheduler: Scheduler) -> None:
    class Broken:
        slow = False

        def mask(self, logits: object) -> None:
            raise RuntimeError("no mask")

        def accept(self, token: int) -> None:
            pass

    good = Asked(scheduler, prompt(1, 50), 30)
    bad = Asked(scheduler, prompt(2, 50), 30, constraint=Broken())
    while not isinstance(event := bad.next(), Failed):
        pass
    assert "no mask" in event.message
    assert good.end().written_tokens == 30


def test_what_is_no_number_fails_its_own_request_and_enters_no_tree(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", format_name="Q8_0", tied=False)
    with GGUF(path) as gguf:
        info = gguf.tensors["token_embd.weight"]
    with path.open("r+b") as file:
        file.seek(info.offset + 200 * info.nbytes // 259)
        file.write(np.float16(np.nan).tobytes())
    with LLM(path, threads=2, context=512) as llm:
        good = [Asked(llm.scheduler, [i % 100 for i in range(40)], 30), Asked(llm.scheduler, [5] * 70, 30)]
        # Damaged in a row without logits, far before the end: the pages up to it are shared with nobody.
        bad = Asked(llm.scheduler, [7] * 10 + [200] + [7] * 400, 5)
        while not isinstance(event := bad.next(), Failed):
            assert not isinstance(event, TextDelta)
        assert "not a number" in event.message
        assert [each.end().written_tokens for each in good] == [30, 30]
        again = Asked(llm.scheduler, [7] * 10 + [200] + [7] * 400, 5)
        while not isinstance(event := again.next(), Failed):
            pass
        assert Asked(llm.scheduler, [7] * 300, 5).end().written_tokens == 5


def test_logprobs_and_bias(loaded: LLM, scheduler: Scheduler) -> None:
    ids = prompt(5, 30)
    asked = Asked(scheduler, ids, 4, top_logprobs=3)
    asked.end()
    scores = [score for event in asked.seen if isinstance(event, TextDelta) for score in event.scores]
    assert [score.token for score in scores] == asked.tokens
    for score in scores:
        assert score.top[0] == (score.token, score.logprob)
        assert len(score.top) == 3 and score.top[0][1] >= score.top[1][1] >= score.top[2][1]
    biased = Asked(scheduler, ids, 4, logit_bias={77: 1000.0})
    biased.end()
    assert biased.tokens == [77] * 4


def test_a_closed_scheduler_cancels_and_takes_no_more(loaded: LLM) -> None:
    scheduler = Scheduler(loaded.model, loaded.tokenizer, loaded.top_k)
    asked = Asked(scheduler, prompt(1, 100), 400)
    scheduler.close()
    assert asked.end().reason == "cancelled"
    with pytest.raises(Exception, match="shutting down"):
        Asked(scheduler, prompt(1, 5), 3)
