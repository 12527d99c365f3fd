"""Programs of counting operations: which threads a step calls, and that it calls each once."""

import ctypes
import threading
import time

import numpy as np
import pytest

from seventy.jit.compiler import Library
from seventy.jit.isa import supported
from seventy.kernels import run
from seventy.machine.topology import allowed_cpus
from seventy.runtime.threads import Aborted, Team

_OPERATION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Program:
    """`length` operations with a barrier before each; `calls` are (operation, thread, threads) in order."""

    def __init__(self, length: int = 3, pause: float = 0) -> None:
        self.calls: list[tuple[int, int, int]] = []

        def operation(arguments: int, counter: int, thread: int, threads: int) -> None:
            self.calls.append((arguments or 0, thread, threads))
            time.sleep(pause)

        self._kernel = _OPERATION(operation)
        address = ctypes.cast(self._kernel, ctypes.c_void_p).value
        self.operations = np.array([(address, i, 1, 0) for i in range(length)], np.uint64)
        self.counters = np.zeros(length * run.COUNTER_BYTES // 8, np.int64)


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(supported()[-1])


def cpus(n: int) -> list[int]:
    return [allowed_cpus()[i % len(allowed_cpus())] for i in range(n)]


def test_a_step_calls_the_threads_it_wants_and_each_once(library: Library) -> None:
    team = Team(library, cpus(6))
    try:
        # Ups and downs, fast enough that some threads still spin and slow enough that some have parked.
        for threads, rest in [(6, 0), (2, 0), (6, 0.02), (1, 0), (4, 0.02), (6, 0), (3, 0.02), (6, 0)] * 10:
            program = Program()
            team.run(program.operations, program.counters, threads)
            assert sorted(program.calls) == [(i, t, threads) for i in range(3) for t in range(threads)]
            # Every thread has passed a barrier before one begins what is after it.
            assert [i for i, _, _ in program.calls] == sorted(i for i, _, _ in program.calls)
            time.sleep(rest)
        program = Program()
        team.run(program.operations, program.counters)
        assert len(program.calls) == 18
    finally:
        team.close()


def test_threads_that_are_not_called_sleep(library: Library) -> None:
    team = Team(library, cpus(4))
    try:
        program = Program(1)
        team.run(program.operations, program.counters, 4)
        deadline = time.monotonic() + 60
        while not team._parked[1:].all() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert team._parked.tolist() == [0, 1, 1, 1]
        long = Program(5, pause=0.01)
        team.run(long.operations, long.counters, 2)
        # They have not been woken in all that time.
        assert team._parked[2:].tolist() == [1, 1]
        assert {thread for _, thread, _ in long.calls} == {0, 1}
    finally:
        team.close()


def test_abort_of_a_step_of_few_threads_leaves_the_team_usable(library: Library) -> None:
    team = Team(library, cpus(4))
    try:
        program = Program(200, pause=0.005)
        threading.Timer(0.05, team.abort).start()
        with pytest.raises(Aborted):
            team.run(program.operations, program.counters, 2)
        program = Program()
        team.run(program.operations, program.counters, 4)
        assert len(program.calls) == 12
    finally:
        team.close()


def test_a_cpu_that_cannot_be_had_is_done_without(library: Library) -> None:
    team = Team(library, [max(allowed_cpus()) + 1000] * 2)
    try:
        program = Program()
        team.run(program.operations, program.counters)
        assert len(program.calls) == 6
    finally:
        team.close()
