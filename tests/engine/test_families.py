"""Texts of models that remember more than keys and values of each layer: to the bit those of an undisturbed run.

States of delta-nets, windows of convolutions, attention with windows beside them, layers that share what others
remember, embeddings of each layer.
"""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from seventy import LLM
from seventy.cache.prefix import Sequence
from seventy.engine.drafts import Drafts
from seventy.engine.model import Aborted, Model, Segment
from seventy.engine.scheduler import Scheduler
from tests.engine.test_drafts import Texts, always
from tests.engine.test_scheduler import VARIED, Asked, alone, prompt, together
from tests.support.families import gemma4, lfm2, lfm2moe, qwen35, qwen35moe
from tests.support.families.judge import IDS

KINDS = {
    "qwen35": (qwen35, {"layers": 4}),
    "qwen35moe": (qwen35moe, {"layers": 4}),
    "lfm2": (lfm2, lfm2.CASES["window"]),
    "lfm2moe": (lfm2moe, {}),
    "E2B": (gemma4, gemma4.CASES["E2B"]),
}


@pytest.fixture(scope="module", params=KINDS)
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """The 1-user default: one text's worth of memory, up to 4 written at once; what they say is not guessed."""
    family, corners = KINDS[request.param]
    path = family.write(tmp_path_factory.mktemp("models") / f"{request.param}.gguf", **corners)
    with LLM(path, threads=2, context=512, draft="off") as llm:
        yield llm


@pytest.fixture
def undisturbed(llm: LLM) -> np.ndarray:
    """The logits after each of IDS; nothing of that run is remembered."""
    llm.model.cache.forget()
    logits = llm.logits(IDS)
    llm.model.cache.forget()
    return logits


def step(model: Model, sequence: Sequence, tokens: list[int]) -> np.ndarray:
    """The logits after these tokens, which are not committed."""
    sequence.reserve(sequence.length + len(tokens))
    return model.step([Segment(sequence.length, tokens, 1, sequence.pages, sequence.states)]).logits[0]


def assert_nothing_is_held(model: Model) -> None:
    cache, states = model.cache, model.cache.states
    assert (states.free, cache.free_pages) == (states.n_states, cache.n_pages)


def test_a_text_that_begins_as_another_goes_on_as_if_alone(llm: LLM, undisturbed: np.ndarray) -> None:
    model = llm.model
    sequence = model.new_sequence()
    # From where the last page before a prompt's end begins, where texts branched off, and from the end of another;
    # where every position is remembered by itself, from the last that is known.
    for n, state, position in ((150, 0, 0), (140, 96, 140), (170, 153, 153), (142, 128, 142)):
        assert sequence.open(IDS[:n]) == (state if model.cache.recurrent else position)
        while rest := IDS[sequence.length : n + 3]:
            some = rest[: sequence.until_mark(len(rest))]
            assert np.array_equal(step(model, sequence, some), undisturbed[sequence.length + len(some) - 1])
            sequence.commit(some)
        sequence.close()
    assert_nothing_is_held(model)


def test_an_aborted_step_leaves_nothing(llm: LLM, undisturbed: np.ndarray) -> None:
    model = llm.model
    sequence, over = model.new_sequence(), threading.Event()
    step(model, sequence, IDS[:100])
    sequence.commit(IDS[:100])

    def abort() -> None:
        while not over.wait(1e-5):
            model.abort()

    # Another text's tokens are read and not committed; and a step is stopped in its midst.
    step(model, sequence, IDS[5:50])
    thread = threading.Thread(target=abort)
    thread.start()
    with pytest.raises(Aborted):
        for _ in range(1000):
            step(model, sequence, IDS[3:103])
    over.set()
    thread.join()
    for at in (100, 101):
        assert np.array_equal(step(model, sequence, IDS[at : at + 1]), undisturbed[at])
        sequence.commit(IDS[at : at + 1])
    sequence.close()


def test_rows_of_many_texts_do_not_know_of_each_other(llm: LLM, undisturbed: np.ndarray) -> None:
    model = llm.model
    sequences = [model.new_sequence() for _ in range(3)]
    for sizes in ((40, 1, 64), (1, 30, 70), (60, 1, 1)):
        batch, tokens = [], []
        for sequence, n in zip(sequences, sizes, strict=True):
            some = IDS[sequence.length : sequence.length + n]
            sequence.reserve(sequence.length + n)
            batch.append(Segment(sequence.length, some, 1, sequence.pages, sequence.states))
            tokens.append(some)
        logits = model.step(batch).logits
        for i, (sequence, some) in enumerate(zip(sequences, tokens, strict=True)):
            sequence.commit(some)
            assert np.array_equal(logits[i], undisturbed[sequence.length - 1])
    for sequence in sequences:
        sequence.close()


def test_texts_under_load_and_preempted_are_the_texts_alone(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    samplings = [VARIED | {"seed": i} if i % 2 else {} for i in range(4)]
    asked = [{"ids": prompt(i, 60 + 9 * i), "max_tokens": 150, "sampling": samplings[i]} for i in range(4)]
    expected = [alone(llm, each["ids"], 150, **each["sampling"]) for each in asked]
    llm.model.cache.forget()
    before = llm.scheduler.statistics.preempted
    # Room for 512 positions: not all of them fit at once.
    found = together(llm.scheduler, monkeypatch, asked)
    assert [(each.end().reason, each.tokens) for each in found] == [("length", tokens) for tokens in expected]
    assert llm.scheduler.statistics.preempted > before
    assert_nothing_is_held(llm.model)


def test_cancelled_texts_leave_nothing(llm: LLM) -> None:
    prompts = [prompt(i, 40 + 25 * i) for i in range(4)]
    expected = [alone(llm, ids, 12) for ids in prompts]
    for turn in range(4):
        # Of 12 requests, each third is cancelled at once, while it waits, while it is read, or while it is written.
        asked = [Asked(llm.scheduler, prompts[(turn + i) % 4], 12) for i in range(12)]
        for each in asked[turn % 3 :: 3]:
            if turn > 1:
                each.next()
            llm.scheduler.cancel(each.request)
        for i, each in enumerate(asked):
            end = each.end()
            assert each.tokens == expected[(turn + i) % 4] or (end.reason == "cancelled" and i % 3 == turn % 3)
    assert_nothing_is_held(llm.model)


def test_the_second_turn_reads_what_is_new(llm: LLM) -> None:
    llm.model.cache.forget()
    first, recurrent = alone(llm, IDS[:200], 20), llm.model.cache.recurrent
    # The answer as it is, whose last token was never read; or without what was thought.
    whole, shorter = [*IDS[:200], *first, 1, 2, 3], [*IDS[:195], 9, 9, 9]
    again = Asked(llm.scheduler, whole, 5)
    assert again.end().cached_tokens == 219
    branched = Asked(llm.scheduler, shorter, 5)
    assert branched.end().cached_tokens == (160 if recurrent else 195)
    assert again.tokens == alone(llm, whole, 5) and branched.tokens == alone(llm, shorter, 5)


def test_prompts_alike_that_come_together_are_read_once(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    llm.model.cache.forget()
    asked = [{"ids": [*IDS[:100], i], "max_tokens": 5} for i in range(3)]
    assert [each.end().cached_tokens for each in together(llm.scheduler, monkeypatch, asked)] == [0, 96, 96]


def test_drafts_change_nothing(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, prompts = Texts(), [prompt(i, 20 + 37 * i) for i in range(4)]
    samplings = [VARIED | {"seed": i} if i % 2 else {} for i in range(4)]
    expected = [alone(llm, ids, 60, **each) for ids, each in zip(prompts, samplings, strict=True)]
    texts.whole = [ids + tokens for ids, tokens in zip(prompts, expected, strict=True)]
    scheduler = Scheduler(llm.model, llm.tokenizer, llm.top_k, drafts=Drafts())
    always(scheduler, monkeypatch)
    try:
        for kind in (texts.right, texts.mixed, texts.wrong):
            scheduler.drafts.make_lookup = kind
            llm.model.cache.forget()
            asked = [Asked(scheduler, ids, 60, user=str(i), sampling=samplings[i]) for i, ids in enumerate(prompts)]
            ends = [each.end() for each in asked]
            assert [each.tokens for each in asked] == expected
            assert sum(end.drafted_tokens for end in ends) > 40
            assert any(end.accepted_tokens for end in ends) == (kind != texts.wrong)
        # What is remembered with drafts pending in it, too: another text goes on from it.
        scheduler.drafts.make_lookup = texts.right
        again = Asked(scheduler, texts.whole[0][:50], 20)
        assert again.end().accepted_tokens > 10 and again.tokens == texts.whole[0][50:70]
        more = Asked(scheduler, texts.whole[0][:70], 1)
        assert more.end().cached_tokens == 69 and more.tokens == texts.whole[0][70:71]
    finally:
        scheduler.close()
    assert_nothing_is_held(llm.model)
