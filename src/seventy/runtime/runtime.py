"""What all models of a process share: the compiled kernels and the threads."""

import os
import threading
from collections.abc import Sequence
from weakref import WeakSet, WeakValueDictionary

from seventy.jit.compiler import Library
from seventy.jit.isa import Isa
from seventy.runtime.threads import Executor, ThreadPool


class Runtime:
    """The process's shared resources for running models: one Library per ISA level and one ThreadPool.

    A process has one Runtime, `shared`. A library lives as long as a model holds it. The threads live from the first
    executor to the end of the last, and the steps of all executors take turns on them.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: a forked child has none of its parent's threads."""
        self._lock = threading.Lock()
        self._libraries: WeakValueDictionary[Isa, Library] = WeakValueDictionary()
        self._executors: WeakSet[Executor] = WeakSet()
        self._pool: ThreadPool | None = None

    def library(self, isa: Isa) -> Library:
        """Return the process's library of this level; each kernel is compiled and linked once in it."""
        with self._lock:
            library = self._libraries.get(isa)
            if library is None:
                library = self._libraries[isa] = Library(isa)
            return library

    @property
    def lent(self) -> bool:
        """Whether a model has the threads: measurements beside it would say little."""
        with self._lock:
            return bool(self._executors)

    def executor(self, library: Library, cpus: Sequence[int]) -> Executor:
        """Lend the threads, one on each of `cpus`, until the executor is closed; start those that are missing.

        The pool's own loop is taken from `library` where there is no pool yet; of which ISA level does not matter.
        """
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPool(library, cpus)
            else:
                self._pool.grow(cpus)
            executor = Executor(self._pool, len(cpus), self._returned)
            self._executors.add(executor)
            return executor

    def _returned(self, executor: Executor) -> None:
        """End the threads after the last executor. Safe to be interrupted and called again."""
        with self._lock:
            self._executors.discard(executor)
            if self._pool is not None and not self._executors:
                self._pool.close()
                self._pool = None


shared = Runtime()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared.reset)
