"""The models of a server: loaded when they are asked for, kept while memory allows, the longest unused leave first.

A thread of its own loads and unloads, one at a time; handlers of requests ask for a model and wait. Who asks for a
loaded model goes on at once. Where there is no memory for a model that somebody waits for, others leave: first those
that nobody uses. One that is in use is never stopped; but when it has answered for TURN_SECONDS since somebody began to
wait, it takes no more requests, ends those that run, and leaves. Its waiting requests stay here until its turn comes
again. The models wait in the order of their longest waiting request, so none waits longer than a turn and a switch for
each of the others, and for the end of the answers that run then.
"""

import asyncio
import contextlib
import logging
import math
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from starlette.requests import Request as HttpRequest

from seventy.engine.llm import LLM
from seventy.engine.model import Progress
from seventy.engine.request import Failed, Finished, Request
from seventy.engine.scheduler import Statistics
from seventy.errors import SeventyError
from seventy.runtime.reservations import TooLittleMemory, ledger
from seventy.server.backend import Backend
from seventy.server.errors import ApiError
from seventy.server.streams import disconnected
from seventy.sizes import size

TURN_SECONDS = 60.0
# What of a scheduler's statistics only grows; it outlives the model's leaving.
COUNTERS = (
    "requests", "cancelled", "prompt_tokens", "cached_tokens", "written_tokens", "steps", "rows", "preempted",
    "drafted_tokens", "accepted_tokens",
)  # fmt: skip
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
T = TypeVar("T")
_log = logging.getLogger("seventy.server")


def keep_alive_seconds(value: str | float) -> float:
    """Seconds of a duration as Ollama's clients write it: 300, "5m", "1h30m"; below 0 is for ever.

    Raises ValueError for what is none.
    """
    text = str(value).strip()
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        seconds = float(text)
    elif re.fullmatch(r"-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+", text):
        parts = re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", text)
        seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
        seconds = -seconds if text.startswith("-") else seconds
    else:
        raise ValueError(f"keep_alive is a number of seconds or a duration such as 5m or 1h30m, not {text[:40]!r}")
    return math.inf if seconds < 0 else seconds


class Loader(Protocol):
    """How this server loads a file: with what context, threads and so on."""

    def needs(self, path: Path) -> tuple[int, int]:
        """Bytes of memory it takes at least, and with room for one whole text."""
        ...

    def load(self, path: Path, progress: Progress, memory: int | None) -> LLM:
        """The model, in no more than `memory` bytes; None for whatever the machine has."""
        ...


@dataclass(slots=True, eq=False)
class _Ticket:
    """A request that waits for its model."""

    user: str
    model: Future[Backend] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class ServedModel:
    """A model that requests may name, loaded or not; `aliases` are further names of it.

    `state` is absent, loading, ready, leaving or failed. The rest is the pool's own.
    """

    name: str
    path: Path
    aliases: frozenset[str] = frozenset()
    state: str = "absent"
    what: str = "starting"
    done: int = 0
    total: int = 0
    error: str = ""
    backend: Backend | None = None
    keep_alive: float = math.inf
    last_used: float = 0.0
    turn_began: float = 0.0
    # Bytes at least, and for a whole text, once they are known.
    needs: tuple[int, int] | None = None
    # The machine turned out to have less memory than it seemed: everything else must leave first.
    short: bool = False
    # It takes no more requests: another model's turn has come.
    draining: bool = False
    removed: bool = False
    # Requests that have a handle on the loaded model and are not in its queue yet.
    preparing: int = 0
    tickets: list[_Ticket] = field(default_factory=list)
    # Requests that were in its queue when it had to leave, and since when they wait here.
    parked: list[Request] = field(default_factory=list)
    parked_since: float = 0.0

    @property
    def created(self) -> int:
        """When its file was written, in seconds since 1970; 0 where it is gone."""
        try:
            return int(self.path.stat().st_mtime)
        except OSError:
            return 0

    @property
    def share(self) -> float:
        """How much of loading is done."""
        return self.done / self.total if self.total else 0.0

    @property
    def ready(self) -> bool:
        return self.state == "ready" and self.backend is not None and self.backend.scheduler.alive

    @property
    def busy(self) -> bool:
        return self.preparing > 0 or (self.backend is not None and self.backend.scheduler.busy)

    @property
    def memory_bytes(self) -> int:
        return self.backend.llm.model.memory_bytes if self.backend else 0

    @property
    def expires(self) -> float:
        """When it leaves if nobody uses it, in time.monotonic's seconds."""
        return self.last_used + self.keep_alive

    @property
    def since(self) -> float:
        """Since when somebody waits for it; infinity where nobody does."""
        parked = [self.parked_since] if self.parked else []
        return min([*(ticket.since for ticket in self.tickets), *parked], default=math.inf)

    def not_ready(self) -> ApiError:
        if self.state == "failed":
            return ApiError(503, f"the model could not be loaded: {self.error}", "model_not_loaded")
        share = f"{self.what}, {self.share:.0%}"
        message = f"the model is loading ({share}); try again"
        return ApiError(503, message, "model_loading", None, {"Retry-After": "5"})


class ModelPool:
    """Owns the models of a server; the first of them is the default, loaded at the start.

    A server that was started with one model is `lenient`: a request may call it anything, and gets 503 until it is
    loaded for the first time; with several a request waits for its model. `keep_alive` are the seconds that an unused
    model stays, `queue` is the most requests that wait for models to load. `room` tells how many bytes are free.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        loader: Loader,
        *,
        keep_alive: float = math.inf,
        queue: int = 64,
        max_seconds: float | None = None,
        log_prompts: bool = False,
        pooling: str | None = None,
        room: Callable[[], int] | None = None,
    ) -> None:
        self.lenient = len(models) == 1
        self.observers: list[Callable[[Finished], None]] = []
        self.past: Counter[str] = Counter()
        self.loads = 0
        self._loader, self._keep_alive, self._queue = loader, keep_alive, queue
        self._max_seconds, self._log_prompts, self._pooling = max_seconds, log_prompts, pooling
        self._room = room or _free
        self._models = list(models)
        # Guards all of this; what it protects changes in handlers, in engines' threads and in the pool's own.
        self._lock = threading.Condition()
        self._changed = False
        self._closing = False
        self._first: Future[Backend] = Future()
        self._thread = threading.Thread(target=self._work, name="seventy-models", daemon=True)

    # For the server

    @property
    def models(self) -> list[ServedModel]:
        """Those that may be asked for."""
        with self._lock:
            return [model for model in self._models if not model.removed]

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none; ApiError 404 where every model was deleted."""
        if not (models := self.models):
            raise ApiError(404, "this server has no model left; pull one", "model_not_found", "model")
        return models[0]

    def look(self, at: Callable[[Backend], T], model: ServedModel | None = None) -> list[T]:
        """What a function says of every loaded model, or of one; none leaves meanwhile."""
        with self._lock:
            models = self._models if model is None else [model]
            return [at(each.backend) for each in models if each.backend and each.state == "ready"]

    @property
    def waiting(self) -> int:
        """How many requests wait for a model to be loaded."""
        return sum(len(model.tickets) + len(model.parked) for model in self.models)

    @property
    def starting(self) -> bool:
        """Whether the default model has not been loaded yet."""
        return not self._first.done()

    @property
    def alive(self) -> bool:
        """Whether models can be had: the default was not found broken, and no thread was ended by a bug."""
        models = self.models
        broken = any(model.state == "ready" and not model.ready for model in models)
        return self._thread.is_alive() and not broken and all(model.state != "failed" for model in models[:1])

    def find(self, name: str | None, strict: bool = False) -> ServedModel:
        """The model of this name, the default where there is none; ApiError 404 for a name of nothing here.

        Unless `strict`, a server that was started with one model calls that one by any name.
        """
        if not name:
            return self.default
        models, wanted = self.models, name.removesuffix(":latest")
        for model in models:
            if wanted == model.name or name == model.name:
                return model
        for model in models:
            if wanted in model.aliases or name in model.aliases:
                return model
        if not strict and self.lenient:
            return self.default
        have = ", ".join(repr(model.name) for model in models[:10])
        more = f" and {len(models) - 10} more" if len(models) > 10 else ""
        raise ApiError(404, f"model {name[:100]!r} not found; this server has {have}{more}", "model_not_found", "model")

    @contextlib.asynccontextmanager
    async def use(
        self, request: HttpRequest, name: str | None, keep_alive: float | None = None, strict: bool = False
    ) -> AsyncIterator[Backend]:
        """The model of this name, loaded, which stays until what is asked of it meanwhile is answered.

        `keep_alive` replaces the pool's until the next request. Raises ApiError: 404 of `find`, 429 where too many
        wait, 503 where the model cannot be loaded.
        """
        model = self.find(name, strict)
        if self.lenient and self.starting:
            raise model.not_ready()
        ticket = self._ask(model, request.state.user, keep_alive)
        try:
            yield await _granted(ticket, request)
        finally:
            if ticket.cancel():
                self._wake()
            elif not ticket.exception():
                self._release(model)

    def add(self, model: ServedModel) -> None:
        """Takes one more model; one of its name that is here goes by its aliases, too."""
        with self._lock:
            for other in self.models:
                if other.name == model.name:
                    other.aliases |= model.aliases
                    return
            self._models.append(model)

    def remove(self, model: ServedModel) -> None:
        """Takes a model out of the list; its running answers go on to their end, waiting ones fail."""
        with self._lock:
            model.removed = model.draining = True
            self._fail(model, ApiError(404, f"model {model.name!r} was deleted", "model_not_found", "model"))
            self._wake()

    def start(self) -> None:
        """Begin to load the default model."""
        self._thread.start()
        model = self.default
        self._first = self._ask(model, "", None)

        def arrived(first: Future[Backend]) -> None:
            # Nobody goes on with it: the model is there, that is all.
            if not first.exception():
                self._release(model)

        self._first.add_done_callback(arrived)

    def wait(self) -> None:
        """Until the default model is loaded, or could not be."""
        wait_for([self._first])

    def close(self) -> None:
        """Stop loading, cancel what runs and free all models."""
        self._closing = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()
        for model in self._models:
            self._fail(model, _closing())
            if model.backend:
                self._unload(model)

    # Asking

    def _ask(self, model: ServedModel, user: str, keep_alive: float | None) -> Future[Backend]:
        with self._lock:
            if self._closing:
                raise _closing()
            model.keep_alive = self._keep_alive if keep_alive is None else keep_alive
            ticket = _Ticket(user)
            model.tickets.append(ticket)
            self._admit(model)
            if not ticket.model.done():
                self._check_queue(model, ticket)
                self._wake()
        return ticket.model

    def _check_queue(self, model: ServedModel, ticket: _Ticket) -> None:
        """As in a model's own queue: one user alone may fill it to the half."""
        users = [one.user for each in self._models for one in each.tickets]
        users += [one.user for each in self._models for one in each.parked]
        mine = users.count(ticket.user)
        if len(users) > self._queue or (mine > -(-self._queue // 2) and self._queue > 1):
            model.tickets.remove(ticket)
            raise ApiError(
                429, f"{len(users) - 1} requests are waiting, {mine - 1} of them yours; try again in 30 s",
                "queue_full", None, {"Retry-After": "30"},
            )  # fmt: skip

    def _release(self, model: ServedModel) -> None:
        with self._lock:
            model.preparing -= 1
            self._ended(model)

    def _ended(self, model: ServedModel) -> None:
        """An answer of the model has ended, or something else that it was waited for; by any thread."""
        model.last_used = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            self._changed = True
            self._lock.notify()

    def _admit(self, model: ServedModel) -> None:
        """Let those go on that wait for a model which is there. With the lock held."""
        if model.backend is None or model.state != "ready" or model.draining:
            return
        parked, model.parked = model.parked, []
        for request in parked:
            try:
                model.backend.scheduler.submit(request)
            except SeventyError as error:
                request.deliver(Failed(str(error)))
        tickets, model.tickets = model.tickets, []
        for ticket in tickets:
            if ticket.model.set_running_or_notify_cancel():
                model.preparing += 1
                model.last_used = time.monotonic()
                ticket.model.set_result(model.backend)

    def _fail(self, model: ServedModel, error: ApiError) -> None:
        """Tell everyone who waits for a model that it does not come."""
        with self._lock:
            tickets, model.tickets = model.tickets, []
            parked, model.parked = model.parked, []
            for ticket in tickets:
                if ticket.model.set_running_or_notify_cancel():
                    # One each: an exception remembers where it was raised.
                    copy = ApiError(error.status, error.message, error.code, error.param, error.headers)
                    ticket.model.set_exception(copy)
            for request in parked:
                request.deliver(Failed(error.message))

    # The pool's thread

    def _work(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except BaseException:
            _log.exception("the thread that loads models ended")
            # A bug; nobody is to wait for ever.
            with self._lock:
                self._closing = True
                for model in self._models:
                    self._fail(model, _closing())
            raise

    def _turn(self) -> None:
        """Do what is to be done next, or wait until there is something."""
        with self._lock:
            self._changed = False
            now = time.monotonic()
            self._models = [model for model in self._models if model.backend or not model.removed]
            for model in self._models:
                _forget_cancelled(model)
            unused = [model for model in self._models if model.state == "ready" and not model.busy]
            expired = next((model for model in unused if model.removed or model.expires <= now), None)
            if expired:
                self._leave(expired)
            waited_for = [model for model in self._models if model.since < math.inf and not model.backend]
            if not waited_for:
                self._drain(())
        if expired:
            self._unload(expired)
        elif waited_for:
            self._bring(min(waited_for, key=lambda model: model.since))
        else:
            self._rest(min((model.expires for model in unused), default=math.inf))

    def _rest(self, until: float) -> None:
        """Until something changes, or that time."""
        with self._lock:
            if not self._changed and not self._closing:
                # Infinity is more than a lock's timeout takes.
                self._lock.wait(max(0.0, min(until - time.monotonic(), 3600.0)))

    def _bring(self, wanted: ServedModel) -> None:
        """Load a model, or unload one that is in its way, or wait for those that are in use."""
        if len(self._models) > 1 and wanted.needs is None:
            try:
                wanted.needs = self._loader.needs(wanted.path)
            except SeventyError as error:
                return self._failed(wanted, str(error))
        # It asks other processes: not with the lock held.
        room = self._room()
        leaving = self._in_the_way(wanted, room)
        if leaving is None:
            return
        over = time.monotonic()
        with self._lock:
            in_use = [model for model in leaving if model.busy]
            if in_use:
                over = max(max(model.turn_began, wanted.since) for model in in_use) + TURN_SECONDS
            self._drain(leaving if over <= time.monotonic() else ())
            if leaving and not any(model.busy for model in leaving):
                self._leave(leaving[0])
        if not leaving:
            self._load(wanted)
        elif leaving[0].state == "leaving":
            self._unload(leaving[0])
        else:
            self._rest(over if over > time.monotonic() else math.inf)

    def _drain(self, leaving: Collection[ServedModel]) -> None:
        """Let these take no more requests, and all others. With the lock held."""
        for model in self._models:
            model.draining = model.removed or model in leaving
            if model in leaving:
                _park(model)
            self._admit(model)

    def _in_the_way(self, wanted: ServedModel, room: int) -> list[ServedModel] | None:
        """The models that must leave for one: unused ones first, then whose turn began first.

        None, and those who wait are told, where there would be no memory for it without all the others.
        """
        with self._lock:
            loaded = [model for model in self._models if model.backend]
            alone = room + sum(model.memory_bytes for model in loaded)
            least, full = wanted.needs or (0, 0)
            if least > alone:
                message = f"{wanted.name} needs {size(least)} of memory at least, and {size(alone)} are free for models"
                self._failed(wanted, message)
                return None
            want = alone if wanted.short else min(full, alone)
            loaded.sort(key=lambda model: (model.busy, model.turn_began if model.busy else model.last_used))
            leaving: list[ServedModel] = []
            for model in loaded:
                if room >= want:
                    break
                leaving.append(model)
                room += model.memory_bytes
            return leaving

    def _load(self, model: ServedModel) -> None:
        model.state, model.what, model.done, model.total = "loading", "starting", 0, 0
        try:
            backend = self._loaded(model)
        except TooLittleMemory as error:
            if any(other.backend for other in self._models) and not model.short:
                model.state, model.short = "absent", True
            else:
                self._failed(model, str(error))
        except SeventyError as error:
            self._failed(model, str(error))
        except Exception as error:
            _log.exception("loading %s failed", model.name)
            self._failed(model, f"loading failed: {error!r}")
        else:
            with self._lock:
                model.backend = backend
                model.state, model.short, model.draining = "ready", False, model.removed
                model.turn_began = model.last_used = time.monotonic()
                self.loads += 1
                self._admit(model)

    def _loaded(self, model: ServedModel) -> Backend:
        def progress(what: str, done: int, total: int) -> None:
            if self._closing or model.removed:
                raise SeventyError("loading was stopped")
            model.what, model.done, model.total = what, done, total

        llm = self._loader.load(model.path, progress, model.needs[1] if model.needs else None)
        try:
            return Backend(
                model.name, llm, self._observe, lambda: self._ended(model), self._max_seconds, self._log_prompts,
                self._pooling,
            )  # fmt: skip
        except BaseException:
            llm.close()
            raise

    def _failed(self, model: ServedModel, message: str) -> None:
        """The model could not be loaded; the next request for it tries again."""
        with self._lock:
            model.state, model.error, model.short, model.needs = "failed", message, False, None
            self._fail(model, model.not_ready())

    def _leave(self, model: ServedModel) -> None:
        """Give no more handles on a model that nobody uses. With the lock held."""
        assert model.backend is not None
        model.state = "leaving"
        self.past.update(counted(model.backend.scheduler.statistics))

    def _unload(self, model: ServedModel) -> None:
        assert model.backend is not None
        model.backend.llm.close()
        with self._lock:
            model.backend = None
            model.state, model.draining = "absent", False

    def _observe(self, finished: Finished) -> None:
        for observer in self.observers:
            observer(finished)


async def _granted(ticket: Future[Backend], request: HttpRequest) -> Backend:
    """The model when it is there; who goes meanwhile waits no longer."""
    if ticket.done():
        return ticket.result()
    waiting, gone = asyncio.wrap_future(ticket), asyncio.create_task(disconnected(request.receive))
    both: set[asyncio.Future[Any]] = {waiting, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ApiError(499, "the client has gone")
        return waiting.result()
    finally:
        gone.cancel()
        waiting.cancel()


def _forget_cancelled(model: ServedModel) -> None:
    """What was cancelled does not wait any longer."""
    model.tickets = [ticket for ticket in model.tickets if not ticket.model.cancelled()]
    for request in [request for request in model.parked if request.cancelled]:
        model.parked.remove(request)
        waited = time.monotonic() - request.since
        request.deliver(Finished("cancelled", len(request.ids), 0, 0, waited, 0.0, 0.0))


def _park(model: ServedModel) -> None:
    """Take back what waits in a model's queue, until its next turn."""
    assert model.backend is not None
    if back := model.backend.scheduler.take_back():
        if not model.parked:
            model.parked_since = time.monotonic()
        model.parked += back


def counted(statistics: Statistics) -> dict[str, int]:
    return {name: getattr(statistics, name) for name in COUNTERS}


def _closing() -> ApiError:
    message = "the server is shutting down; try again when it is back"
    return ApiError(503, message, "shutting_down", None, {"Retry-After": "10"})


def _free() -> int:
    with ledger() as found:
        return found.room
