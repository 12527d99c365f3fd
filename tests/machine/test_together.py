import threading

import numpy as np
import pytest

from seventy.errors import SeventyError
from seventy.jit.compiler import Kernel, Library
from seventy.jit.isa import supported
from seventy.kernels.bandwidth import ARGUMENTS, Pattern
from seventy.machine import together
from seventy.machine.together import Call

# What the calls point to.
kept_alive: list[object] = []


def bandwidth_calls(cpus: list[int]) -> tuple[int, list[Call]]:
    memory, arrived, sums = np.ones(1 << 20, np.uint8), np.zeros(8, np.int64), np.zeros(len(cpus), np.uint32)
    values = [array.ctypes.data for array in (memory, arrived, sums)]
    words = dict(zip(ARGUMENTS, [values[0], 4, len(memory) // 4, *values[1:]], strict=True))
    arguments = np.array(list(words.values()), np.int64)
    library = Library(supported()[0])
    kept_alive.append((library, memory, arrived, sums))
    function = library.address(Kernel("seventy.kernels.bandwidth:build", (Pattern(4),)))
    return function, [Call(cpu, arguments, np.zeros(8, np.int64)) for cpu in cpus]


def test_takes_time() -> None:
    assert together.run(*bandwidth_calls([0, 0])) > 0


def test_a_cpu_that_is_not_there() -> None:
    with pytest.raises(SeventyError, match="CPU 9999"):
        together.run(*bandwidth_calls([0, 9999]))


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
        together.run(function, calls)
