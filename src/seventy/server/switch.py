"""The thread of a server that loads models that somebody waits for, and unloads those that are in the way or unused.

It does one thing at a time. Where there is no memory for a model that somebody waits for, others leave: first those
that nobody uses. One that is in use is never stopped; but when it has answered for TURN_SECONDS since somebody began to
wait, it takes no more requests, ends those that run, and leaves. Its waiting requests stay with it until its turn comes
again. The models wait in the order of their longest waiting request, so none waits longer than a turn and a switch for
each of the others, and for the end of the answers that run then.
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from seventy.engine.llm import LLM
from seventy.engine.model import Progress
from seventy.engine.scheduler import Statistics
from seventy.errors import SeventyError, trouble
from seventy.language import t
from seventy.runtime.reservations import TooLittleMemory, ledger
from seventy.server.backend import Backend
from seventy.server.errors import ApiError
from seventy.server.served import Roster, ServedModel
from seventy.sizes import size

TURN_SECONDS = 60.0
# What of a scheduler's statistics only grows; it outlives the model's leaving.
COUNTERS = (
    "requests", "cancelled", "prompt_tokens", "cached_tokens", "written_tokens", "steps", "rows", "preempted",
    "drafted_tokens", "accepted_tokens", "gained_seconds",
)  # fmt: skip
_log = logging.getLogger("seventy.server")


class Loader(Protocol):
    """Loads model files with the server's settings (context, threads and so on)."""

    def needs(self, path: Path) -> tuple[int, int]:
        """Return the bytes of memory that a file needs at least, and with a cache for one text of full length."""
        ...

    def load(self, path: Path, progress: Progress, memory: int | None) -> LLM:
        """Load a model within `memory` bytes; None for all that the machine has."""
        ...


class Switch:
    """Loads and unloads the models of a roster in a thread of its own.

    `backend` makes the server's side of a loaded model; `room` tells how many bytes of memory are free.
    """

    def __init__(
        self,
        roster: Roster,
        loader: Loader,
        backend: Callable[[ServedModel, LLM], Backend],
        room: Callable[[], int] | None = None,
    ) -> None:
        self.loads = 0
        # What those counted that have left.
        self.past: Counter[str] = Counter()
        self._roster, self._loader, self._backend, self._room = roster, loader, backend, room or _free
        self._thread = threading.Thread(target=self._work, name="seventy-models", daemon=True)

    @property
    def alive(self) -> bool:
        """False before `start`, after `close`, and after a bug that ended the thread."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start loading the models that requests wait for."""
        self._thread.start()

    def close(self) -> None:
        """Stop loading, cancel what runs and free all models."""
        self._roster.closing = True
        self._roster.wake()
        if self._thread.ident is not None:
            self._thread.join()
        for model in self._roster.every:
            self._refuse(model, closing())
            if model.backend:
                self._unload(model)

    def _work(self) -> None:
        try:
            while not self._roster.closing:
                self._turn()
        except BaseException:
            _log.exception("the thread that loads models ended")
            # A bug; nobody is to wait for ever.
            self._roster.closing = True
            for model in self._roster.every:
                self._refuse(model, closing())
            raise

    def _turn(self) -> None:
        """Do what is to be done next, or wait until there is something."""
        with self._roster.lock:
            self._roster.begin_turn()
            now, models = time.monotonic(), self._roster.every
            unused = [model for model in models if model.state == "ready" and not model.busy]
            expired = next((model for model in unused if model.removed or model.expires <= now), None)
            if expired:
                self._leave(expired)
            waited_for = [model for model in models if model.since < math.inf and not model.backend]
            if not waited_for:
                self._drain(())
        if expired:
            self._unload(expired)
        elif waited_for:
            self._bring(min(waited_for, key=lambda model: model.since))
        else:
            self._roster.rest(min((model.expires for model in unused), default=math.inf))

    def _bring(self, wanted: ServedModel) -> None:
        """Load a model, or unload one that is in its way, or wait for those that are in use."""
        if not self._needs_known(wanted):
            return
        # It asks other processes: not with the lock held.
        try:
            room = self._room()
        except OSError as error:
            return self._failed(wanted, str(trouble(error)))
        leaving = self._in_the_way(wanted, room)
        if leaving is None:
            return
        with self._roster.lock:
            over = _turn_over(leaving, wanted)
            self._drain(leaving if over <= time.monotonic() else ())
            unused = leaving[0] if leaving and not any(model.busy for model in leaving) else None
            if unused:
                self._leave(unused)
        if not leaving:
            self._load(wanted)
        elif unused:
            self._unload(unused)
        else:
            self._roster.rest(over if over > time.monotonic() else math.inf)

    def _needs_known(self, wanted: ServedModel) -> bool:
        """Whether it is known how much memory a model needs; who waits is told where its file cannot be read."""
        if len(self._roster.every) > 1 and wanted.needs is None:
            try:
                wanted.needs = self._loader.needs(wanted.path)
            except SeventyError as error:
                self._failed(wanted, error.text)
                return False
        return True

    def _in_the_way(self, wanted: ServedModel, room: int) -> Sequence[ServedModel] | None:
        """The models that must leave for one; None, and who waits is told, where all of them were not enough."""
        with self._roster.lock:
            loaded = [model for model in self._roster.every if model.backend]
            alone = room + sum(model.memory_bytes for model in loaded)
            least, full = wanted.needs or (0, 0)
            if least > alone:
                message = t(
                    "{name} needs {least} of memory at least, and {alone} are free for models",
                    name=wanted.name, least=size(least), alone=size(alone),
                )
                self._failed(wanted, message)
                return None
            return first_to_leave(loaded, (alone if wanted.short else min(full, alone)) - room)

    def _drain(self, leaving: Collection[ServedModel]) -> None:
        """Let these take no more requests, and all others. With the lock held."""
        for model in self._roster.every:
            model.draining = model.removed or model in leaving
            if model in leaving:
                model.park()
            model.admit()

    def _load(self, model: ServedModel) -> None:
        model.state, model.what, model.done, model.total = "loading", "starting", 0, 0
        try:
            backend = self._loaded(model)
        except TooLittleMemory as error:
            if any(other.backend for other in self._roster.every) and not model.short:
                model.state, model.short = "absent", True
            else:
                self._failed(model, error.text)
        except SeventyError as error:
            self._failed(model, error.text)
        except Exception as error:
            said = trouble(error)
            if said is None:
                _log.exception("loading %s failed", model.name)
            self._failed(model, said or t("loading failed: {error}", error=repr(error)))
        else:
            with self._roster.lock:
                model.backend = backend
                model.state, model.short, model.draining = "ready", False, model.removed
                model.turn_began = model.last_used = time.monotonic()
                self.loads += 1
                model.admit()

    def _loaded(self, model: ServedModel) -> Backend:
        def progress(what: str, done: int, total: int) -> None:
            if self._roster.closing or model.removed:
                raise SeventyError("loading was stopped")
            model.what, model.done, model.total = what, done, total

        llm = self._loader.load(model.path, progress, model.needs[1] if model.needs else None)
        try:
            return self._backend(model, llm)
        except BaseException:
            llm.close()
            raise

    def _failed(self, model: ServedModel, message: str) -> None:
        """The model could not be loaded; the next request for it tries again."""
        with self._roster.lock:
            model.state, model.error, model.short, model.needs = "failed", message, False, None
            model.refuse(model.not_ready())

    def _refuse(self, model: ServedModel, error: ApiError) -> None:
        with self._roster.lock:
            model.refuse(error)

    def _leave(self, model: ServedModel) -> None:
        """Give no more handles on a model that nobody uses. With the lock held."""
        assert model.backend is not None
        model.state = "leaving"
        self.past.update(counted(model.backend.scheduler.statistics))

    def _unload(self, model: ServedModel) -> None:
        assert model.backend is not None
        model.backend.llm.close()
        with self._roster.lock:
            model.backend = None
            model.state, model.draining = "absent", False


def first_to_leave(loaded: Sequence[ServedModel], nbytes: int) -> list[ServedModel]:
    """Return the models to unload for this many bytes: least recently used first, then those busy longest."""
    order = sorted(loaded, key=lambda model: (model.busy, model.turn_began if model.busy else model.last_used))
    leaving: list[ServedModel] = []
    for model in order:
        if nbytes <= 0:
            break
        leaving.append(model)
        nbytes -= model.memory_bytes
    return leaving


def _turn_over(leaving: Sequence[ServedModel], wanted: ServedModel) -> float:
    """When the turns of models that are in use are over: TURN_SECONDS after they began, or after somebody waited."""
    began = [max(model.turn_began, wanted.since) + TURN_SECONDS for model in leaving if model.busy]
    return max(began, default=time.monotonic())


def counted(statistics: Statistics) -> dict[str, float]:
    """Return those statistics of a scheduler that only grow."""
    return {name: getattr(statistics, name) for name in COUNTERS}


def closing() -> ApiError:
    """Return the error for requests while the server shuts down."""
    message = t("the server is shutting down; try again when it is back")
    return ApiError(503, message, "shutting_down", None, {"Retry-After": "10"})


def _free() -> int:
    with ledger() as found:
        return found.room
