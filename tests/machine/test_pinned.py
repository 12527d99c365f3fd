import ctypes
import threading
import time
from typing import Any

import numpy as np
import pytest

from seventy.errors import SeventyError
from seventy.jit.compiler import Kernel, Library
from seventy.jit.isa import supported
from seventy.kernels.bandwidth import ARGUMENTS, Pattern
from seventy.machine import pinned
from seventy.machine.pinned import Call

# What the calls point to.
kept_alive: list[tuple[Any, ...]] = []


def bandwidth_calls(cpus: list[int]) -> tuple[int, list[Call]]:
    memory, arrived, sums = np.ones(1 << 20, np.uint8), np.zeros(8, np.int64), np.zeros(len(cpus), np.uint32)
    values = [array.ctypes.data for array in (memory, arrived, sums)]
    words = dict(zip(ARGUMENTS, [values[0], 4, len(memory) // 4, *values[1:]], strict=True))
    arguments = np.array(list(words.values()), np.int64)
    library = Library(supported()[0])
    kept_alive.append((library, memory, arrived, sums))
    function = library.address(Kernel("seventy.kernels.bandwidth:build", (Pattern(4),)))
    return function, [Call(cpu, arguments, np.zeros(8, np.int64)) for cpu in cpus]


def test_time_is_from_the_last_start_to_the_last_end() -> None:
    begun, ended = [], []

    def kernel(arguments: int, counter: int, thread: int, threads: int) -> None:
        begun.append(time.perf_counter())
        time.sleep(0.05 * (1 + thread))
        ended.append(time.perf_counter())

    function = pinned.SIGNATURE(kernel)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    start = time.perf_counter()
    seconds = pinned.run(address, [Call(0, np.zeros(1, np.int64), np.zeros(8, np.int64)) for _ in range(2)])
    around = time.perf_counter() - start
    assert len(begun) == 2
    # It starts before the last of the kernels does and stops after they have all ended.
    assert max(0.1, max(ended) - max(begun)) <= seconds <= around


def test_a_kernel_runs_on_every_thread() -> None:
    function, calls = bandwidth_calls([0, 0])
    pinned.run(function, calls)
    _, memory, arrived, sums = kept_alive[-1]
    # With a counter each, every thread reads everything.
    assert arrived[0] == 2 and (sums == memory.view(np.uint32).sum(dtype=np.uint32)).all()


def test_a_cpu_that_is_not_there() -> None:
    with pytest.raises(SeventyError, match="CPU 9999"):
        pinned.run(*bandwidth_calls([0, 9999]))


def test_too_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def start(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(1)
        real(thread)

    real = threading.Thread.start
    function, calls = bandwidth_calls([0, 0])
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(SeventyError, match="1 more threads and 2"):
        pinned.run(function, calls)
