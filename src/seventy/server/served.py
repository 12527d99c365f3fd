"""A model of a server: what it is called, whether it is loaded, and the requests that wait for it."""

import math
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from seventy.engine.request import Failed, Finished, Request
from seventy.errors import SeventyError
from seventy.hub.local import Inventory, Local
from seventy.hub.names import of_hubs
from seventy.server.backend import Backend
from seventy.server.errors import ApiError


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that waits for its model."""

    user: str
    model: Future[Backend] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class ServedModel:
    """A model that requests may name, loaded or not; `aliases` are further names of it.

    `state` is absent, loading, ready, leaving or failed. What stands below `error` belongs to the pool, and its lock
    (Roster.lock) is held where a method says so.
    """

    name: str
    path: Path
    aliases: frozenset[str] = frozenset()
    # What the disk says of it (hub/local.py).
    origin: Local | None = None
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
    tickets: list[Ticket] = field(default_factory=list)
    # Requests that were in its queue when it had to leave, and since when they wait here.
    parked: list[Request] = field(default_factory=list)
    parked_since: float = 0.0

    @property
    def created(self) -> int:
        """The time its file was written, in seconds since 1970; 0 if it is gone."""
        try:
            return int(self.path.stat().st_mtime)
        except OSError:
            return 0

    @property
    def share(self) -> float:
        """The fraction of loading that is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0

    @property
    def ready(self) -> bool:
        backend = self.backend
        return self.state == "ready" and backend is not None and backend.scheduler.alive

    @property
    def busy(self) -> bool:
        backend = self.backend
        return self.preparing > 0 or (backend is not None and backend.scheduler.busy)

    @property
    def memory_bytes(self) -> int:
        backend = self.backend
        return backend.llm.model.memory_bytes if backend else 0

    @property
    def expires(self) -> float:
        """The time at which it is unloaded if unused, in seconds of time.monotonic."""
        return self.last_used + self.keep_alive

    @property
    def since(self) -> float:
        """Since when somebody waits for it; infinity where nobody does."""
        parked = [self.parked_since] if self.parked else []
        return min([*(ticket.since for ticket in self.tickets), *parked], default=math.inf)

    def not_ready(self) -> ApiError:
        """Return the error for a request that does not wait for loading."""
        if self.state == "failed":
            return ApiError(503, f"the model could not be loaded: {self.error}", "model_not_loaded")
        share = f"{self.what}, {self.share:.0%}"
        message = f"the model is loading ({share}); try again"
        return ApiError(503, message, "model_loading", None, {"Retry-After": "5"})

    # With the pool's lock held

    def admit(self) -> None:
        """Let those go on that wait for it, where it is loaded and takes requests."""
        if self.backend is None or self.state != "ready" or self.draining:
            return
        parked, self.parked = self.parked, []
        for request in parked:
            try:
                self.backend.scheduler.submit(request)
            except SeventyError as error:
                request.deliver(Failed(error.text))
        tickets, self.tickets = self.tickets, []
        for ticket in tickets:
            if ticket.model.set_running_or_notify_cancel():
                self.preparing += 1
                self.last_used = time.monotonic()
                ticket.model.set_result(self.backend)

    def park(self) -> None:
        """Take back what waits in its queue, until its next turn."""
        assert self.backend is not None
        if back := self.backend.scheduler.take_back():
            if not self.parked:
                self.parked_since = time.monotonic()
            self.parked += back

    def refuse(self, error: ApiError) -> None:
        """Send an error to every request that waits for this model."""
        tickets, self.tickets = self.tickets, []
        parked, self.parked = self.parked, []
        for ticket in tickets:
            if ticket.model.set_running_or_notify_cancel():
                # One each: an exception remembers where it was raised.
                copy = ApiError(error.status, error.message, error.code, error.param, error.headers)
                ticket.model.set_exception(copy)
        for request in parked:
            request.deliver(Failed(error.message))

    def forget_cancelled(self) -> None:
        """Remove cancelled requests from the queue."""
        self.tickets = [ticket for ticket in self.tickets if not ticket.model.cancelled()]
        for request in [request for request in self.parked if request.cancelled]:
            self.parked.remove(request)
            waited = time.monotonic() - request.since
            request.deliver(Finished("cancelled", len(request.ids), 0, 0, waited, 0.0, 0.0))


class Roster:
    """The models of a server, and the lock that guards them and who waits for them.

    What it guards changes in handlers of requests, in engines' threads and in the thread that loads models.
    """

    def __init__(self, models: list[ServedModel]) -> None:
        self.every = models
        self.lock = threading.Condition()
        self.closing = False
        self._changed = False

    @property
    def models(self) -> list[ServedModel]:
        """The models that requests may name."""
        with self.lock:
            return [model for model in self.every if not model.removed]

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none; ApiError 404 where every model was deleted."""
        if not (models := self.models):
            raise ApiError(404, "this server has no model left; pull one", "model_not_found", "model")
        return models[0]

    def find(self, name: str) -> ServedModel | None:
        """Return the model with this name; else with this alias; else with the name that the hubs use for it."""
        models, names = self.models, {name, name.removesuffix(":latest")}
        for model in models:
            if model.name in names:
                return model
        for model in models:
            if names & model.aliases:
                return model
        if wanted := of_hubs(name):
            origins = [model.origin for model in models if model.origin]
            found = Inventory(origins).find(name, wanted)
            return next((model for model in models if found and model.origin is found), None)
        return None

    def missing(self, name: str) -> ApiError:
        """Return the error for an unknown model name."""
        models = self.models
        have = ", ".join(repr(model.name) for model in models[:10])
        more = f" and {len(models) - 10} more" if len(models) > 10 else ""
        message = f"model {name[:100]!r} not found; this server has {have}{more}"
        return ApiError(404, message, "model_not_found", "model")

    def add(self, model: ServedModel) -> None:
        """Take one more model. The same file goes by both names; another one of a taken name gets a name of its own."""
        with self.lock:
            models = self.models
            for other in models:
                if other.path == model.path:
                    other.aliases |= model.aliases | {model.name}
                    return
            model.name = free_name(model, {other.name for other in models})
            self.every.append(model)

    def wake(self) -> None:
        """Tell the thread that loads models that something has changed."""
        with self.lock:
            self._changed = True
            self.lock.notify()

    def ended(self, model: ServedModel) -> None:
        """Note that an answer of the model has ended, or something else that it was waited for."""
        model.last_used = time.monotonic()
        self.wake()

    def begin_turn(self) -> None:
        """Forget what has changed, and the models that are gone. With the lock held."""
        self._changed = False
        self.every = [model for model in self.every if model.backend or not model.removed]
        for model in self.every:
            model.forget_cancelled()

    def rest(self, until: float) -> None:
        """Wait until something changes, or that time of time.monotonic."""
        with self.lock:
            if not self._changed and not self.closing:
                # Infinity is more than a lock's timeout takes.
                self.lock.wait(max(0.0, min(until - time.monotonic(), 3600.0)))


def free_name(model: ServedModel, taken: set[str]) -> str:
    """Return the model's name if it is not taken; else a free alias; else its name with a number."""
    numbered = (f"{model.name}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (model.name, *sorted(model.aliases), *numbered) if name not in taken)


