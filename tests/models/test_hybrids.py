"""Models of gated delta-nets, in every corner that files have, against float forward passes; states over texts."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.cache.prefix import Sequence
from seventy.engine.model import Aborted, Model, Segment
from seventy.engine.request import Finished, Piece, Request
from seventy.gguf.file import GGUF
from tests.support.families import qwen35, qwen35moe
from tests.support.families.judge import IDS, assert_as_near_as_llama_cpp, assert_exact, corners, families

FAMILIES = families("qwen35", "qwen35moe", "qwen3next")
CORNERS = corners(FAMILIES)


@pytest.mark.parametrize(("name", "case"), CORNERS)
def test_logits_are_those_of_floats(name: str, case: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_exact(family, family.write(tmp_path / f"{name} {case}.gguf", seed=1, **CORNERS[name, case]))


@pytest.mark.parametrize("name", FAMILIES)
def test_quantised_files_are_as_right_as_llama_cpp(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_as_near_as_llama_cpp(family, family.write(tmp_path / f"{name}.gguf", seed=1, format="Q8_0"))


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """The 1-user default: one text's worth of memory, up to 4 written at once."""
    path = qwen35moe.write(tmp_path_factory.mktemp("models") / "hybrid.gguf", layers=4)
    with LLM(path, threads=2, context=512) as llm:
        yield llm


@pytest.fixture
def alone(hybrid: LLM) -> np.ndarray:
    """The logits after each of IDS, read in an undisturbed run; nothing of it is remembered."""
    hybrid.model.cache.forget()
    logits = hybrid.logits(IDS)
    hybrid.model.cache.forget()
    return logits


def step(model: Model, sequence: Sequence, tokens: list[int]) -> np.ndarray:
    """The logits after these tokens, which are not committed."""
    sequence.reserve(sequence.length + len(tokens))
    return model.step([Segment(sequence.length, tokens, 1, sequence.pages, sequence.states)]).logits[0]


def test_a_text_that_begins_as_another_goes_on_as_if_alone(hybrid: LLM, alone: np.ndarray) -> None:
    model = hybrid.model
    sequence = model.new_sequence()
    # From where the last page before a prompt's end begins, where texts branched off, and from the end of another.
    for n, known in ((150, 0), (140, 96), (170, 153), (142, 128)):
        assert sequence.open(IDS[:n]) == known
        while rest := IDS[sequence.length : n + 3]:
            some = rest[: sequence.until_mark(len(rest))]
            assert np.array_equal(step(model, sequence, some), alone[sequence.length + len(some) - 1])
            sequence.commit(some)
        sequence.close()


def test_an_aborted_step_leaves_nothing(hybrid: LLM, alone: np.ndarray) -> None:
    model = hybrid.model
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
        assert np.array_equal(step(model, sequence, IDS[at : at + 1]), alone[at])
        sequence.commit(IDS[at : at + 1])
    sequence.close()


def test_rows_of_many_texts_do_not_know_of_each_other(hybrid: LLM, alone: np.ndarray) -> None:
    model = hybrid.model
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
            assert np.array_equal(logits[i], alone[sequence.length - 1])
    for sequence in sequences:
        sequence.close()


def ask(llm: LLM, ids: list[int], n: int) -> tuple[Request, queue.Queue]:
    events: queue.Queue = queue.Queue()
    request = Request(ids, n, events.put, ignore_eos=True)
    llm.scheduler.submit(request)
    return request, events


def wait(asked: tuple[Request, queue.Queue]) -> tuple[list[int], Finished]:
    (_, events), tokens = asked, []
    while not isinstance(event := events.get(timeout=60), Finished):
        if isinstance(event, Piece):
            tokens += event.tokens
    return tokens, event


def test_texts_under_load_and_preempted_are_the_texts_alone(hybrid: LLM) -> None:
    prompts = [[(7 * i + j * j) % 256 for j in range(60 + 9 * i)] for i in range(5)]
    singly = []
    for prompt in prompts:
        hybrid.model.cache.forget()
        singly.append(wait(ask(hybrid, prompt, 150))[0])
    hybrid.model.cache.forget()
    before = hybrid.scheduler.statistics.preempted
    # Room for 512 positions: not all of them fit at once.
    together = [ask(hybrid, prompt, 150) for prompt in prompts]
    assert [wait(asked)[0] for asked in together] == singly
    assert hybrid.scheduler.statistics.preempted > before
    assert hybrid.model.cache.states.free == hybrid.model.cache.states.n_states


def test_cancelled_texts_leave_nothing(hybrid: LLM) -> None:
    prompts = [[(5 * i + j * j) % 256 for j in range(40 + 25 * i)] for i in range(4)]
    singly = []
    for prompt in prompts:
        hybrid.model.cache.forget()
        singly.append(wait(ask(hybrid, prompt, 12))[0])
    for turn in range(4):
        # Of 12 requests, each third is cancelled at once, while it waits, while it is read, or while it is written.
        together = [ask(hybrid, prompts[(turn + i) % 4], 12) for i in range(12)]
        for request, events in together[turn % 3 :: 3]:
            if turn > 1:
                events.get(timeout=60)
            hybrid.scheduler.cancel(request)
        for i, (request, events) in enumerate(together):
            tokens, end = wait((request, events))
            assert tokens == singly[(turn + i) % 4] or (end.reason == "cancelled" and i % 3 == turn % 3)
    states, cache = hybrid.model.cache.states, hybrid.model.cache
    assert (states.free, cache.free_pages) == (states.n_states, cache.n_pages)


def test_the_second_turn_reads_what_is_new(hybrid: LLM) -> None:
    hybrid.model.cache.forget()
    first, _ = wait(ask(hybrid, IDS[:200], 20))
    # The answer as it is, or without what was thought.
    _, end = wait(ask(hybrid, [*IDS[:200], *first, 1, 2, 3], 5))
    assert end.cached_tokens == 219
    tokens, end = wait(ask(hybrid, [*IDS[:195], 9, 9, 9], 5))
    assert end.cached_tokens == 160
    hybrid.model.cache.forget()
    assert wait(ask(hybrid, [*IDS[:195], 9, 9, 9], 5))[0] == tokens


def test_prompts_alike_that_come_together_are_read_once(hybrid: LLM) -> None:
    hybrid.model.cache.forget()
    together = [ask(hybrid, [*IDS[:100], i], 5) for i in range(3)]
    ends = [wait(asked)[1] for asked in together]
    assert [end.cached_tokens for end in ends] == [0, 96, 96]


def test_states_are_in_the_account_and_in_what_steps_read(tmp_path: Path) -> None:
    path = qwen35.write(tmp_path / "model.gguf", layers=3, interval=3, state=32, k_heads=2, v_heads=4)
    with LLM(path, threads=1, context=64) as llm:
        model = llm.model
        # Two layers: a window of 3 rows of 256 channels, and 4 matrices of 32 x 32; and 7 drafted rows.
        kept, drafted = 3 * 256 + 4 * 32 * 32, 256 + 4 * (2 * 32 + 16)
        assert model.cache.states.nbytes == 2 * 4 * (kept + 7 * drafted)
        assert model.cache.states.kept_bytes == 2 * 4 * kept
        nothing = model.program.bytes_of_one_row() + 2 * model.cache.states.kept_bytes
        assert model.read_bytes(1) == nothing + model.cache.memory.position_bytes


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"ssm.inner_size": 128}, "2 key heads and 4 value heads of 64, 128 columns in all; the engine needs whole"),
        ({"ssm.group_count": 3}, "3 key heads and 4 value heads of 64"),
        ({"ssm.conv_kernel": 1}, "ssm.conv_kernel is 1, not a number from 2 to 16; get the file again"),
        ({"full_attention_interval": 0}, "full_attention_interval is 0, not a number"),
        ({"attention.recurrent_layers": [True, False]}, r"recurrent_layers is \[True, False\], not true or false for"),
        ({"attention.recurrent_layers": [False] * 5}, r"shape .512, 256., its metadata says .768, 256."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_words(metadata: dict, sentence: str, tmp_path: Path) -> None:
    path = qwen35.write(tmp_path / "model.gguf")
    with GGUF(path) as file, pytest.raises(SeventyError, match=sentence):
        file.metadata = {**file.metadata, **{f"qwen35.{key}": value for key, value in metadata.items()}}
        Model(file, threads=1)
