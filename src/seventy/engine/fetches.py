"""Tasks whose texts are read from disk (cache/fetch.py) beside the steps of the others."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from seventy.cache.fetch import Fetch
from seventy.engine.task import Task
from seventy.machine.topology import yield_to_others

_log = logging.getLogger("seventy.engine")
_READERS = ThreadPoolExecutor(2, "seventy-fetch", initializer=yield_to_others)


@dataclass(slots=True)
class _Running:
    task: Task
    fetch: Fetch
    work: Future[None] | None = None


class Fetches:
    """The running reads of cached pages from disk. For the engine's thread; `notify` is called by any thread.

    `notify` says that part of a read is done. When a task gives up its fetch (Task.close), the file being read is still
    finished here.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._running: list[_Running] = []

    def __bool__(self) -> bool:
        return bool(self._running)

    def begin(self, task: Task, fetch: Fetch) -> None:
        """Let a task wait until the pages of its text are read from disk."""
        task.fetch = fetch
        self._running.append(_Running(task, fetch))

    def advance(self, spare: int) -> list[Task]:
        """Go on with what was read; return the tasks that need not wait any more. So many free pages are left."""
        ended = []
        for one in list(self._running):
            if one.work is None or one.work.done():
                if self._go_on(one, spare):
                    continue
                self._running.remove(one)
                if one.task.fetch is one.fetch:
                    one.task.fetch = None
                    ended.append(one.task)
        return ended

    def settle(self) -> bool:
        """Wait for those that nobody waits for any more, which hold pages; return whether there were any."""
        stopped = [one for one in self._running if one.task.fetch is not one.fetch]
        for one in stopped:
            self._running.remove(one)
            if one.work:
                wait([one.work])
            while work := one.fetch.next():
                work()
        return bool(stopped)

    def close(self) -> None:
        """Stop all of them, and wait until they have."""
        for one in self._running:
            one.task.give_up_fetch()
        self.settle()

    def _go_on(self, one: _Running, spare: int) -> bool:
        """Hand the next part of a fetch to a reader; False at its end."""
        if one.work and (error := one.work.exception()):
            _log.error("a text was not read from disk", exc_info=error)
            one.fetch.stop()
        work = one.fetch.next(spare)
        if work is None:
            return False
        one.work = _READERS.submit(work)
        one.work.add_done_callback(lambda _: self._notify())
        return True
