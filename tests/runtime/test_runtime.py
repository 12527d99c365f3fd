"""Models that share one process: their threads, their compiled kernels, and what is left after them."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM
from seventy.jit import compiler
from seventy.jit.compiler import Kernel, Library
from seventy.jit.isa import LEVELS, supported
from seventy.machine.topology import allowed_cpus
from seventy.runtime import runtime
from seventy.runtime.runtime import Runtime
from seventy.runtime.threads import Linked
from tests.runtime.test_threads import Program, cpus, pool_threads
from tests.support.tiny import write_tiny

_TOPK = Kernel("seventy.kernels.topk:build")
PROMPT = list(b"One box, the household or the office on it." * 4)


@pytest.fixture(autouse=True)
def nothing_is_open() -> None:
    assert not pool_threads(), "a test before this one left its model open"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "other.gguf", format_name="Q6_K", tied=False)


def test_two_models_share_threads_and_kernels_and_answer_as_alone(tiny: Path, other: Path) -> None:
    alone = []
    for path in (tiny, other):
        with LLM(path, threads=3, context=512) as llm:
            assert len(pool_threads()) == 2
            alone.append((llm.logits(PROMPT), llm.generate(PROMPT, 30, ignore_eos=True).token_ids))
        assert not pool_threads()
    assert not np.array_equal(alone[0][0], alone[1][0])
    with LLM(tiny, threads=3, context=512) as one:
        with LLM(other, threads=3, context=512) as two:
            both = one, two
            assert one.model.library is two.model.library and len(pool_threads()) == 2
            for _ in range(3):
                for llm, (logits, tokens) in zip(both, alone, strict=True):
                    assert np.array_equal(llm.logits(PROMPT), logits)
                    assert llm.generate(PROMPT, 30, ignore_eos=True).token_ids == tokens
            # At the same time, from two threads.
            found: list[list[tuple[np.ndarray, list[int]]]] = [[], []]

            def work(index: int) -> None:
                llm = both[index]
                for _ in range(10):
                    found[index].append((llm.logits(PROMPT), llm.generate(PROMPT, 30, ignore_eos=True).token_ids))

            threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(pool_threads()) == 2
            for (logits, tokens), results in zip(alone, found, strict=True):
                assert len(results) == 10
                assert all(np.array_equal(got, logits) and ids == tokens for got, ids in results)
        # One has gone; the other goes on.
        assert len(pool_threads()) == 2
        assert np.array_equal(one.logits(PROMPT), alone[0][0])
    assert not pool_threads()


def test_a_model_with_more_threads_makes_the_pool_grow(tiny: Path) -> None:
    with LLM(tiny, threads=2, context=512) as one:
        expected = one.logits(PROMPT)
        with LLM(tiny, threads=5, context=512) as two:
            assert len(pool_threads()) == 4
            assert np.array_equal(two.logits(PROMPT), expected) and np.array_equal(one.logits(PROMPT), expected)
        assert np.array_equal(one.logits(PROMPT), expected)
    assert not pool_threads()


def test_a_model_that_cannot_be_loaded_leaves_no_thread(tiny: Path, tmp_path: Path) -> None:
    broken = write_tiny(tmp_path / "broken.gguf", vectors={"who.knows": np.zeros(4, np.float32)})
    with pytest.raises(Exception, match=r"who\.knows"):
        LLM(broken, threads=3)
    assert not pool_threads()


def test_an_unclosed_executor_does_not_keep_the_threads_after_the_others() -> None:
    ours, library = Runtime(), Library(supported()[-1])
    forgotten = ours.executor(library, cpus(3))
    with ours.executor(library, cpus(3)) as executor:
        program = Program()
        executor.run(Linked(program.operations, program.counters))
        del forgotten
        assert len(pool_threads()) == 2
    assert not pool_threads()


def test_a_library_is_one_for_each_level_and_lives_as_long_as_it_is_held() -> None:
    ours = Runtime()
    library = ours.library(LEVELS["generic"])
    assert ours.library(LEVELS["generic"]) is library
    assert ours.library(supported()[-1]) is not library
    library.load([_TOPK])
    del library
    assert not ours.library(LEVELS["generic"])._loaded


def test_what_two_threads_load_at_once_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler, "cache_folder", lambda: tmp_path)
    compiled: list[Kernel] = []
    compile_object = compiler.compile_object

    def counting(kernel: Kernel, isa: compiler.Isa) -> bytes:
        compiled.append(kernel)
        time.sleep(0.05)
        return compile_object(kernel, isa)

    monkeypatch.setattr(compiler, "compile_object", counting)
    library, addresses = Library(LEVELS["generic"]), []
    threads = [threading.Thread(target=lambda: addresses.append(library.address(_TOPK))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiled == [_TOPK] and len(addresses) == 4 and len(set(addresses)) == 1


def test_the_fingerprint_names_the_width() -> None:
    names = {Library(level).fingerprint for level in supported()}
    assert len(names) == len(supported())
    assert Library(supported()[-1]).fingerprint.startswith(f"{supported()[-1].name}-")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    library = Library(supported()[-1])
    with runtime.shared.executor(library, cpus(2)) as executor:
        program = Program()
        executor.run(Linked(program.operations, program.counters))
        child = os.fork()
        if not child:
            code = 1
            try:
                with runtime.shared.executor(library, cpus(2)) as mine:
                    again = Program()
                    mine.run(Linked(again.operations, again.counters))
                    code = 0 if len(again.calls) == 6 else 2
            finally:
                os._exit(code)
        deadline = time.monotonic() + 60
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        if not ended[0]:
            os.kill(child, 9)
            ended = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(ended[1]) == 0
        executor.run(Linked(program.operations, program.counters))
        assert len(program.calls) == 12
    assert set(allowed_cpus()) == os.sched_getaffinity(0)
