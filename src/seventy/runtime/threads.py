"""The threads that run a program together."""

import contextlib
import ctypes
import signal
import socket
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from seventy.jit.compiler import Kernel, Library
from seventy.kernels import run
from seventy.machine.topology import pin_thread

_KERNEL = Kernel("seventy.kernels.run:build")
_SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Aborted(Exception):
    """The step was stopped before its end; what it wrote is void."""


class Team:
    """One thread for each of `cpus`, pinned to it: the caller of `run` is the first, the others wait.

    Threads that ran a step spin for about 2 ms after it, then sleep until the next that wants them; those it does not
    want sleep on. A CPU may be named twice.
    """

    def __init__(self, library: Library, cpus: Sequence[int]) -> None:
        self.threads = len(cpus)
        assert 1 <= self.threads <= run.MOST_THREADS, f"{self.threads} threads"
        self._function = _SIGNATURE(library.address(_KERNEL))
        self._control = np.zeros(run.PARKED // 8 + run.LINE // 8 * self.threads, np.int64)
        self._libc = ctypes.CDLL(None)
        self._word(run.YIELD)[0] = ctypes.cast(self._libc.sched_yield, ctypes.c_void_p).value or 0
        self._parked = self._control[run.PARKED // 8 :: run.LINE // 8]
        self._wake = [threading.Semaphore(0) for _ in cpus]
        self._closing = False
        self._busy = threading.Lock()
        self._first_cpu = cpus[0]
        self._workers = [
            threading.Thread(target=self._work, args=(i, cpu), name=f"seventy-{i}", daemon=True)
            for i, cpu in enumerate(cpus)
            if i
        ]
        for worker in self._workers:
            worker.start()

    def _word(self, offset: int) -> NDArray[np.int64]:
        return self._control[offset // 8 : offset // 8 + 1]

    def _work(self, index: int, cpu: int) -> None:
        # A CPU that was taken from us meanwhile: slower, not wrong.
        with contextlib.suppress(OSError):
            pin_thread({cpu})
        seen = 0
        while not self._closing:
            seen = self._function(self._control.ctypes.data, index, seen)
            self._wake[index].acquire()

    def run(
        self, operations: NDArray[np.uint64], counters: NDArray[np.int64], threads: int | None = None
    ) -> None:
        """Runs a program (kernels/run.py says how it lies in memory) to its end, on the first `threads` threads.

        Raises Aborted if `abort` was called while it ran.
        """
        threads = threads or self.threads
        assert threads <= self.threads, f"{threads} of {self.threads} threads"
        with self._busy:
            assert not self._closing, "the team is closed"
            counters[:] = 0
            self._word(run.ABORT)[0] = 0
            self._word(run.FINISHED)[0] = 0
            self._word(run.OPERATIONS)[0] = operations.ctypes.data
            self._word(run.COUNT)[0] = len(operations)
            self._word(run.COUNTERS)[0] = counters.ctypes.data
            self._word(run.THREADS)[0] = threads
            self._function(self._control.ctypes.data, -1, 0)
            for index in np.flatnonzero(self._parked[:threads]):
                self._parked[index] = 0
                self._wake[index].release()
            # Unpinned, the caller may find itself on the core of a worker it waits for.
            before = None
            with contextlib.suppress(OSError):
                before = pin_thread({self._first_cpu})
            self._function(self._control.ctypes.data, 0, 0)
            if before is not None:
                pin_thread(before)
            if self._word(run.ABORT)[0]:
                raise Aborted

    def abort(self) -> None:
        """Makes a running step stop at its next barrier; from any thread."""
        self._word(run.ABORT)[0] = 1

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Lets Ctrl-C stop a running step.

        Python runs its signal handlers between two bytecodes, hence not during a step; but the wakeup descriptor is
        written at once, and a thread that reads it can raise the abort flag.
        """
        if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
            yield
            return
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

        def watch() -> None:
            while data := ours.recv(16):
                if signal.SIGINT in data:
                    self.abort()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            theirs.close()
            watcher.join()
            ours.close()

    def close(self) -> None:
        """Ends the threads; a running step is stopped."""
        self.abort()
        with self._busy:
            self._closing = True
        for semaphore in self._wake:
            semaphore.release()
        for worker in self._workers:
            worker.join()
