"""Programs of counting operations: which threads a step calls, that it calls each once, and what Ctrl-C leaves."""

import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from seventy.jit.compiler import Library
from seventy.jit.isa import supported
from seventy.kernels import run
from seventy.machine.topology import allowed_cpus
from seventy.runtime.threads import Aborted, Executor, Linked, ThreadPool

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


def parked(pool: ThreadPool) -> list[int]:
    """The marks of the threads above 0."""
    marks = pool._control[(run.FIRST_THREAD + run.PARKED) // 8 :: run.THREAD_BYTES // 8]
    return marks[1 : len(pool.cpus)].tolist()


def wait_until_parked(pool: ThreadPool) -> None:
    deadline = time.monotonic() + 60
    while not all(parked(pool)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(parked(pool))


def pool_threads() -> set[int]:
    """Native ids of the threads of every pool of this process."""
    return {thread.native_id or 0 for thread in threading.enumerate() if re.fullmatch(r"seventy-\d+", thread.name)}


@pytest.fixture
def pool(library: Library) -> Iterator[ThreadPool]:
    pool = ThreadPool(library, cpus(4))
    yield pool
    pool.close()


def test_a_step_calls_the_threads_it_wants_and_each_once(library: Library) -> None:
    pool = ThreadPool(library, cpus(6))
    executor = Executor(pool, 6)
    try:
        # Ups and downs, fast enough that some threads still spin and slow enough that some have parked.
        for threads, rest in [(6, 0), (2, 0), (6, 0.02), (1, 0), (4, 0.02), (6, 0), (3, 0.02), (6, 0)] * 10:
            program = Program()
            executor.run(Linked(program.operations, program.counters), threads)
            assert sorted(program.calls) == [(i, t, threads) for i in range(3) for t in range(threads)]
            # Every thread has passed a barrier before one begins what is after it.
            assert [i for i, _, _ in program.calls] == sorted(i for i, _, _ in program.calls)
            time.sleep(rest)
        program = Program()
        executor.run(Linked(program.operations, program.counters))
        assert len(program.calls) == 18
    finally:
        pool.close()


def test_steps_at_the_border_of_parking_lose_no_thread(pool: ThreadPool) -> None:
    # Rests about as long as threads spin: each outcome of their race with the publisher comes up.
    executor = Executor(pool, 4)
    absolute = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value
    operations = np.array([(absolute, 0, 1, 0)] * 3, np.uint64)
    counters = np.zeros(3 * run.COUNTER_BYTES // 8, np.int64)
    woken = 0
    for rest in np.random.default_rng(0).uniform(0.0005, 0.006, 400):
        time.sleep(rest)
        woken += sum(parked(pool))
        executor.run(Linked(operations, counters))
        # Each of the three barriers was reached by four threads, no more.
        assert counters[run.LINE // 8 :: run.COUNTER_BYTES // 8].tolist() == [4, 4, 4]
    assert 0 < woken < 400 * 3


def test_threads_that_are_not_called_sleep(pool: ThreadPool) -> None:
    executor = Executor(pool, 4)
    program = Program(1)
    executor.run(Linked(program.operations, program.counters), 4)
    wait_until_parked(pool)
    long = Program(5, pause=0.01)
    executor.run(Linked(long.operations, long.counters), 2)
    # They have not been woken in all that time.
    assert parked(pool)[1:] == [1, 1]
    assert {thread for _, thread, _ in long.calls} == {0, 1}


def test_abort_of_a_step_of_few_threads_leaves_the_pool_usable(pool: ThreadPool) -> None:
    executor = Executor(pool, 4)
    program = Program(200, pause=0.005)
    timer = threading.Timer(0.05, executor.abort)
    timer.start()
    with pytest.raises(Aborted):
        executor.run(Linked(program.operations, program.counters), 2)
    timer.join()
    assert len(program.calls) < 400
    program = Program()
    executor.run(Linked(program.operations, program.counters), 4)
    assert len(program.calls) == 12


def test_abort_stops_the_steps_of_one_executor_only(pool: ThreadPool) -> None:
    one, other = Executor(pool, 2), Executor(pool, 4)
    program, waiting = Program(20, pause=0.01), Program()
    stopped: list[bool] = []

    def wait_for_a_turn() -> None:
        try:
            other.run(Linked(waiting.operations, waiting.counters))
        except Aborted:
            stopped.append(True)

    thread = threading.Thread(target=wait_for_a_turn)
    # While the first step runs, so that the second waits for its turn when it is stopped.
    timers = [threading.Timer(0.05, thread.start), threading.Timer(0.1, other.abort)]
    for timer in timers:
        timer.start()
    one.run(Linked(program.operations, program.counters))
    for timer in timers:
        timer.join()
    thread.join()
    assert len(program.calls) == 40
    assert stopped == [True] and waiting.calls == []
    other.run(Linked(waiting.operations, waiting.counters))
    assert len(waiting.calls) == 12


def test_steps_of_several_executors_take_turns(pool: ThreadPool) -> None:
    order: list[int] = []
    stop = threading.Event()

    def work(number: int, program: Program) -> None:
        executor = Executor(pool, 2)
        while not stop.is_set():
            program.calls.clear()
            executor.run(Linked(program.operations, program.counters))
            # Nobody else's threads came into this step.
            assert sorted(program.calls) == [(i, t, 2) for i in range(3) for t in range(2)]
            order.append(number)

    # The first and the last begin their next step at once; the second would starve if it were not given its turn.
    programs = [Program(pause=0.001) for _ in range(3)]
    threads = [threading.Thread(target=work, args=item) for item in enumerate(programs)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join()
    shares = [order.count(number) for number in range(3)]
    assert min(shares) > 10 and max(shares) - min(shares) <= 0.1 * max(shares) + 2, shares


def test_a_pool_grows_and_moves(pool: ThreadPool) -> None:
    executor = Executor(pool, 4)
    before = pool_threads()
    pool.grow(cpus(2))
    assert pool_threads() == before
    pool.grow(cpus(6)[::-1])
    assert len(pool_threads()) == len(before) + 2
    assert [os.sched_getaffinity(worker.native_id) for worker in pool._workers] == [{cpu} for cpu in cpus(6)[::-1][1:]]
    for user, threads in ((executor, 4), (Executor(pool, 6), 6)):
        program = Program()
        user.run(Linked(program.operations, program.counters))
        assert sorted(program.calls) == [(i, t, threads) for i in range(3) for t in range(threads)]


def test_a_thread_that_was_started_twice_runs_once(pool: ThreadPool) -> None:
    # What Ctrl-C between the start of a thread and its entry in the list leads to; of the two the later one ends.
    wait_until_parked(pool)
    twice = threading.Thread(target=pool._work, args=(3, cpus(4)[3]))
    twice.start()
    twice.join(10)
    assert not twice.is_alive()
    program = Program()
    Executor(pool, 4).run(Linked(program.operations, program.counters))
    assert len(program.calls) == 12
    # The other case: it runs, but the list does not know it. It ends with the pool.
    unknown = threading.Thread(target=pool._work, args=(4, cpus(5)[4]), daemon=True)
    unknown.start()
    pool.grow(cpus(5))
    Executor(pool, 5).run(Linked(program.operations, program.counters))
    assert len(program.calls) == 27
    pool.close()
    unknown.join(10)
    assert not unknown.is_alive()


def test_a_closed_pool_and_a_closed_executor_run_nothing(pool: ThreadPool) -> None:
    program = Program()
    executor, other = Executor(pool, 2), Executor(pool, 2)
    executor.close()
    executor.close()
    with pytest.raises(AssertionError, match="executor is closed"):
        executor.run(Linked(program.operations, program.counters))
    pool.close()
    pool.close()
    assert not any(worker.is_alive() for worker in pool._workers)
    with pytest.raises(AssertionError, match="pool is closed"):
        other.run(Linked(program.operations, program.counters))
    assert program.calls == []


def test_lead_keeps_the_caller_on_the_first_cpu_and_takes_it_back(pool: ThreadPool) -> None:
    before, first = os.sched_getaffinity(0), {pool.cpus[0]}
    with pytest.raises(ZeroDivisionError), pool.lead():
        assert os.sched_getaffinity(0) == first
        with pool.lead():
            program = Program()
            Executor(pool, 4).run(Linked(program.operations, program.counters))
        assert os.sched_getaffinity(0) == first
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before
    Executor(pool, 4).run(Linked(program.operations, program.counters))
    assert os.sched_getaffinity(0) == before


def test_a_cpu_that_cannot_be_had_is_done_without(library: Library) -> None:
    pool = ThreadPool(library, [max(allowed_cpus()) + 1000] * 2)
    try:
        program, executor = Program(), Executor(pool, 2)
        with executor.lead():
            executor.run(Linked(program.operations, program.counters))
        assert len(program.calls) == 6
    finally:
        pool.close()


# A timer's signal with Ctrl-C's handler comes at any moment, while one that a thread sends waits for the GIL.
_INTERRUPTED = """
import ctypes, os, signal, threading, time
import numpy as np
from seventy.kernels import run
from seventy.jit.compiler import Library
from seventy.jit.isa import supported
from seventy.runtime.threads import Executor, Linked, ThreadPool
from tests.runtime.test_threads import cpus

pool = ThreadPool(Library(supported()[-1]), cpus(2))
executor = Executor(pool, 2)
absolute = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value
operations = np.array([(absolute, 0, 1, 0)] * 5, np.uint64)
counters = np.zeros(5 * run.COUNTER_BYTES // 8, np.int64)
before, caught, steps, where = os.sched_getaffinity(0), 0, 0, set()
random = np.random.default_rng(0)
signal.signal(signal.SIGALRM, signal.default_int_handler)
while caught < 1000:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(20e-6, 500e-6))
        while True:
            with executor.lead():
                executor.run(Linked(operations, counters))
                steps += 1
    except KeyboardInterrupt as error:
        caught += 1
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        where.add((frame.tb_frame.f_code.co_name, frame.tb_lineno))
        del frame
    assert os.sched_getaffinity(0) == before, (caught, os.sched_getaffinity(0), where)
executor.run(Linked(operations, counters))
assert counters[run.LINE // 8 :: run.COUNTER_BYTES // 8].tolist() == [2] * 5
time.sleep(0.3)
cpu = time.process_time()
time.sleep(0.5)
spent = time.process_time() - cpu
pool.close()
print(caught, steps, len(where), threading.active_count(), spent)
"""


def test_ctrl_c_at_any_moment_leaves_affinity_and_pool_as_they_were() -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    result = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    caught, steps, places, threads, spent = result.stdout.split()
    assert int(caught) == 1000 and int(steps) > 1000 and int(places) > 5
    # The pool's threads are gone, and none of them spun in half a second.
    assert int(threads) == 1 and float(spent) < 0.1
