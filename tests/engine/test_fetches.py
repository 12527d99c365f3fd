"""A text that is read from disk stops nobody else's, and what is idle is written before the process ends."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seventy import LLM
from seventy.cache import prefix
from seventy.cache.store import DiskCache, PageStore
from seventy.engine.scheduler import Scheduler
from seventy.kernels.pages import PAGE
from tests.engine.test_disk import PROMPT
from tests.engine.test_scheduler import Asked, prompt


def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be")


def opened(tiny: Path, folder: Path) -> LLM:
    return LLM(tiny, threads=2, context=256, sequences=2, parallel=2, draft="off", disk=DiskCache(folder, 100_000_000))


@pytest.fixture(scope="module")
def written(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A folder with the pages of PROMPT, and what it is answered."""
    folder = tmp_path_factory.mktemp("cache")
    with opened(tiny, folder) as llm:
        return folder, llm.generate(PROMPT, 8, ignore_eos=True).token_ids


class Gate:
    """A disk that gives nothing until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked, self.open, get = threading.Event(), threading.Event(), PageStore.get

        def late(store: PageStore, name: bytes, sizes: list[int]) -> object:
            self.asked.set()
            assert self.open.wait(60)
            return get(store, name, sizes)

        patch.setattr(PageStore, "get", late)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


@pytest.fixture
def llm(tiny: Path, written: tuple[Path, list[int]]) -> Iterator[LLM]:
    with opened(tiny, written[0]) as llm:
        yield llm


def all_free(scheduler: Scheduler) -> None:
    cache = scheduler.model.cache
    until(lambda: not scheduler.busy and cache.free_pages == cache.n_pages)


def test_others_go_on_while_a_text_is_read(llm: LLM, gate: Gate, written: tuple[Path, list[int]]) -> None:
    reading = Asked(llm.scheduler, PROMPT, 8, user="a")
    # It begins alike and waits for the first, which reads for both.
    alike = Asked(llm.scheduler, [*PROMPT[:180], 5], 4, user="c")
    assert gate.asked.wait(60)
    assert Asked(llm.scheduler, prompt(3, 40), 30, user="b").end().reason == "length"
    assert reading.events.empty() and llm.scheduler.busy
    gate.open.set()
    end = reading.end()
    assert reading.tokens == written[1] and end.cached_tokens >= 160
    assert alike.end().cached_tokens >= 160
    all_free(llm.scheduler)


def test_who_goes_while_it_is_read_leaves_nothing_behind(llm: LLM, gate: Gate, written: tuple[Path, list[int]]) -> None:
    gone = Asked(llm.scheduler, PROMPT, 8)
    assert gate.asked.wait(60)
    llm.scheduler.cancel(gone.request)
    assert gone.end().reason == "cancelled"
    other = Asked(llm.scheduler, prompt(4, 40), 8, user="b")
    other.end()
    gate.open.set()
    all_free(llm.scheduler)
    again = Asked(llm.scheduler, PROMPT, 8)
    again.end()
    assert again.tokens == written[1]


def test_pages_that_are_read_are_given_up_for_a_text_that_runs(
    llm: LLM, gate: Gate, written: tuple[Path, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the cache's 16 pages 4 are somebody else's and 6 are being read when the other text comes to want 7."""
    taken = llm.model.new_sequence()
    taken.reserve(4 * PAGE)
    step = llm.model.step
    monkeypatch.setattr(llm.model, "step", lambda *given: (time.sleep(0.002), step(*given))[1])
    running = Asked(llm.scheduler, prompt(5, 127), 100, user="b")
    running.next()
    reading = Asked(llm.scheduler, PROMPT, 8)
    assert gate.asked.wait(60)
    until(lambda: bool(llm.scheduler.statistics.preempted))
    gate.open.set()
    assert running.end().reason == "length"
    assert reading.end().reason == "length" and reading.tokens == written[1]
    taken.close()
    all_free(llm.scheduler)


def test_a_model_is_closed_while_a_text_is_read(tiny: Path, gate: Gate, written: tuple[Path, list[int]]) -> None:
    with opened(tiny, written[0]) as llm:
        asked = Asked(llm.scheduler, PROMPT, 8)
        assert gate.asked.wait(60)
        threading.Timer(0.2, gate.open.set).start()
    assert asked.end().reason == "cancelled"


@pytest.mark.parametrize("busy", [False, True])
def test_what_is_idle_is_written(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setattr(prefix, "IDLE_SECONDS", 0.0)
    with opened(tiny, tmp_path) as llm:
        said = llm.generate(PROMPT, 8, ignore_eos=True).token_ids
        other = Asked(llm.scheduler, prompt(6, 20), 200, user="b") if busy else None
        until(lambda: len(list(tmp_path.rglob("*.kv"))) >= len(PROMPT) // 32)
        # As if the first had been killed.
        with opened(tiny, tmp_path) as second:
            again = second.generate(PROMPT, 8, ignore_eos=True)
            assert again.token_ids == said and again.timings.cached_tokens >= 160
        if other:
            other.end()


@pytest.mark.parametrize("harm", ["a bit of a page", "every file is short", "the folder is gone", "full"])
def test_a_disk_that_fails_costs_reading_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    folder = tmp_path / "cache"
    with opened(tiny, folder) as llm:
        said = llm.generate(PROMPT, 8, ignore_eos=True).token_ids
    files, most = sorted(folder.rglob("*.kv")), 6 * PAGE
    with opened(tiny, folder) as llm:
        if harm == "a bit of a page":
            data = bytearray(files[2].read_bytes())
            data[len(data) // 2] ^= 4
            files[2].write_bytes(data)
            most = 5 * PAGE
        elif harm == "every file is short":
            for file in files:
                os.truncate(file, file.stat().st_size // 2)
            most = 0
        elif harm == "the folder is gone":
            shutil.rmtree(folder)
            most = 0
        else:
            monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        again = llm.generate(PROMPT, 8, ignore_eos=True)
        assert again.token_ids == said and again.timings.cached_tokens <= most
        assert harm != "full" or again.timings.cached_tokens == most
        llm.generate(prompt(8, 200), 8, ignore_eos=True)
