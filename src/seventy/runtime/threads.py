"""The threads that run programs together."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from seventy.jit.compiler import Kernel, Library
from seventy.kernels import run
from seventy.machine.topology import pin_thread

_KERNEL = Kernel("seventy.kernels.run:build")
_SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)


class Aborted(Exception):
    """The step was stopped before its end; what it wrote is void."""


class Linked:
    """A program as kernels/run.py reads it, with its counters; where both lie is looked up once."""

    def __init__(self, operations: NDArray[np.uint64], counters: NDArray[np.int64]) -> None:
        self.operations, self.counters = operations, counters
        self.length, self.addresses = len(operations), (operations.ctypes.data, counters.ctypes.data)

    def first(self, count: int) -> "Linked":
        """Return a program of the first `count` operations."""
        return Linked(self.operations[:count], self.counters)


class ThreadPool:
    """A pool with one thread pinned to each of `cpus`; the caller of a step is the first of them.

    Steps are run by Executors and take turns, in the order in which they came. Threads that ran a step spin for about 2
    ms after it, then sleep until a step needs them. A CPU may be named twice.
    """

    def __init__(self, library: Library, cpus: Sequence[int]) -> None:
        assert cpus, "a pool has at least one CPU"
        self._library = library
        self._function = _SIGNATURE(library.address(_KERNEL))
        # One line of threads more: `close` wakes a thread that Ctrl-C kept `grow` from writing down.
        self._control = _lines(run.FIRST_THREAD + run.THREAD_BYTES * (run.MOST_THREADS + 1))
        self._address = self._control.ctypes.data
        libc = ctypes.CDLL(None)
        for i, name in enumerate(run.LIBC):
            self._control[run.FUNCTIONS // 8 + i] = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0
        for i in range(run.TURNS):
            semaphore = ctypes.c_void_p(self._address + run.FIRST_TURN + run.LINE * i)
            assert libc.sem_init(semaphore, 0, int(i == 0)) == 0, "sem_init failed"
        self.cpus: list[int] = [cpus[0]]
        self._workers: list[threading.Thread] = []
        self._growing = threading.Lock()
        self.grow(cpus)

    def grow(self, cpus: Sequence[int]) -> None:
        """Have a thread on each of these CPUs, in this order: start those that are missing, move those elsewhere."""
        assert len(cpus) <= run.MOST_THREADS, f"{len(cpus)} threads, at most {run.MOST_THREADS}"
        with self._growing:
            for index, cpu in enumerate(cpus):
                if index == len(self.cpus):
                    name = f"seventy-{index}"
                    worker = threading.Thread(target=self._work, args=(index, cpu), name=name, daemon=True)
                    # If Ctrl-C comes after the start, the next `grow` starts this thread again; one of the two ends.
                    worker.start()
                    self._workers.append(worker)
                    self.cpus.append(cpu)
                elif cpu != self.cpus[index]:
                    if index and (thread := self._workers[index - 1].native_id):
                        _move(thread, {cpu})
                    self.cpus[index] = cpu

    def _work(self, index: int, cpu: int) -> None:
        # A CPU that was taken from us meanwhile: slower, not wrong.
        with contextlib.suppress(OSError):
            pin_thread({cpu})
        self._function(self._address, index, None)

    def run(self, step: int) -> None:
        """Run the step whose block (kernels/run.py) is at this address, in one foreign call, to its end."""
        ran = self._function(self._address, 0, step)
        assert ran, "the thread pool is closed"

    @contextlib.contextmanager
    def lead(self) -> Iterator[None]:
        """Keep the calling thread on the pool's first CPU while it runs steps; nested calls are fine.

        A caller that is not kept there may find itself on the CPU of a thread it waits for. Threads and processes that
        are started meanwhile inherit this one CPU, and topology.read() sees no other.
        """
        if not hasattr(os, "sched_setaffinity"):
            yield
            return
        # By its number: after Ctrl-C in __enter__ another thread might close this generator.
        thread, before = threading.get_native_id(), os.sched_getaffinity(0)
        try:
            _move(thread, {self.cpus[0]})
            yield
        finally:
            # No call of a Python function in front of this one: Ctrl-C could come in it.
            try:  # noqa: SIM105
                os.sched_setaffinity(thread, before)
            except OSError:
                pass

    def close(self) -> None:
        """End the threads after the running step. May be called twice."""
        block = _lines(run.STEP_BYTES)
        block[run.THREADS // 8] = len(self.cpus) + 1
        self._function(self._address, run.CLOSE, block.ctypes.data)
        for worker in self._workers:
            worker.join()


class Executor:
    """Runs the programs of one model on a pool, on as many as its first `threads` threads.

    What `abort` stops are the steps of this executor only. `closed` is called at the end of `close`.
    """

    def __init__(self, pool: ThreadPool, threads: int, closed: Callable[["Executor"], None] | None = None) -> None:
        assert 1 <= threads <= len(pool.cpus), f"{threads} of {len(pool.cpus)} threads"
        self.pool, self.threads = pool, threads
        self._on_close = closed
        step = _lines(run.STEP_BYTES)
        self._step_address = step.ctypes.data
        # Python reads and writes single numbers of a memoryview faster than of an array.
        self._step = step.data
        self._abort = self._step[run.ABORT // 8 :]
        self._running = threading.Lock()
        self._closed = False

    def run(
        self, program: Linked, threads: int | None = None, before: Callable[[], bool] | None = None
    ) -> None:
        """Run a program to its end, on the first `threads` threads.

        `before` is called when nothing is left to do in Python, and says whether the program is still wanted. Raises
        Aborted if it is not, and if `abort` was called after that or while the program waited for its turn or ran.
        """
        threads = threads or self.threads
        assert 1 <= threads <= self.threads, f"{threads} of {self.threads} threads"
        step = self._step
        with self._running:
            # First this, then the look: so a `close` that comes between is not missed.
            self._abort[0] = 0
            assert not self._closed, "the executor is closed"
            if before and not before():
                raise Aborted
            program.counters.fill(0)
            step[run.OPERATIONS // 8], step[run.COUNTERS // 8] = program.addresses
            step[run.COUNT // 8] = program.length
            step[run.THREADS // 8] = threads
            self.pool.run(self._step_address)
            if self._abort[0]:
                raise Aborted

    def abort(self) -> None:
        """Make a running step stop at its next barrier; from any thread."""
        self._abort[0] = 1

    def lead(self) -> contextlib.AbstractContextManager[None]:
        """Keep the calling thread on the pool's first CPU while it runs steps (ThreadPool.lead)."""
        return self.pool.lead()

    def close(self) -> None:
        """Stop a running step and take no more; twice is once."""
        self._closed = True
        self.abort()
        with self._running:
            pass
        if self._on_close:
            self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _lines(nbytes: int) -> NDArray[np.int64]:
    """Zeros, aligned to a cache line."""
    memory = np.zeros((nbytes + run.LINE) // 8, np.int64)
    first = -memory.ctypes.data % run.LINE // 8
    return memory[first : first + nbytes // 8]


def _move(thread: int, cpus: Collection[int]) -> None:
    """Keep a thread of this process on these CPUs, where the system has them; where not, it stays where it is."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(thread, cpus)
