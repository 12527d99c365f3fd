"""The models of a server, as handlers of requests use them: each is loaded when it is asked for.

A handler asks for a model and waits; who asks for a loaded one goes on at once. switch.py loads and unloads them,
served.py says who waits for which.
"""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from seventy.engine.llm import LLM
from seventy.engine.request import Finished
from seventy.server.backend import Backend
from seventy.server.errors import ApiError
from seventy.server.served import Roster, ServedModel, Ticket
from seventy.server.streams import disconnected
from seventy.server.switch import Loader, Switch, closing

T = TypeVar("T")


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
        self._keep_alive, self._queue = keep_alive, queue
        self._max_seconds, self._log_prompts, self._pooling = max_seconds, log_prompts, pooling
        self._roster = Roster(list(models))
        self._switch = Switch(self._roster, loader, self._backend, room)
        self._first: Future[Backend] = Future()

    # What there is

    @property
    def models(self) -> list[ServedModel]:
        """The models that requests may name."""
        return self._roster.models

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none; ApiError 404 where every model was deleted."""
        return self._roster.default

    @property
    def loads(self) -> int:
        """How many times a model was loaded."""
        return self._switch.loads

    @property
    def past(self) -> Counter[str]:
        """The sums of switch.COUNTERS over the schedulers of unloaded models."""
        return self._switch.past

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
        return self._switch.alive and not broken and all(model.state != "failed" for model in models[:1])

    def look(self, at: Callable[[Backend], T], model: ServedModel | None = None) -> list[T]:
        """Apply a function to every loaded model, or to one; none is unloaded meanwhile."""
        with self._roster.lock:
            models = self._roster.every if model is None else [model]
            return [at(each.backend) for each in models if each.backend and each.state == "ready"]

    def find(self, name: str | None, strict: bool = False) -> ServedModel:
        """Return the model of this name, or the default without a name. Raises ApiError 404 for an unknown name.

        Unless `strict`, a server started with one model accepts any name for it.
        """
        if not name:
            return self.default
        if found := self._roster.find(name):
            return found
        if not strict and self.lenient:
            return self.default
        raise self._roster.missing(name)

    # Changing what there is

    def add(self, model: ServedModel) -> None:
        """Take one more model; a file that is here already goes by its names, too."""
        self._roster.add(model)

    def remove(self, model: ServedModel) -> None:
        """Remove a model from the list. Its running answers are finished; waiting requests fail."""
        with self._roster.lock:
            model.removed = model.draining = True
            model.refuse(ApiError(404, f"model {model.name!r} was deleted", "model_not_found", "model"))
        self._roster.wake()

    def start(self) -> None:
        """Begin to load the default model."""
        self._switch.start()
        model = self.default
        self._first = self._ask(model, "", None)

        def arrived(first: Future[Backend]) -> None:
            # Nobody goes on with it: the model is there, that is all.
            if not first.exception():
                self._release(model)

        self._first.add_done_callback(arrived)

    def wait(self) -> None:
        """Wait until the default model is loaded or has failed to load."""
        wait_for([self._first])

    def close(self) -> None:
        """Stop loading, cancel what runs and free all models."""
        self._switch.close()

    # Asking

    @contextlib.asynccontextmanager
    async def use(
        self, request: HttpRequest, name: str | None, keep_alive: float | None = None, strict: bool = False
    ) -> AsyncIterator[Backend]:
        """Load the model of this name if necessary, and keep it loaded until the context ends.

        `keep_alive`, in seconds, replaces the pool's until the next request. Raises ApiError: 404 as `find` does, 429
        if too many requests wait, 503 if the model cannot be loaded.
        """
        model = self.find(name, strict)
        if self.lenient and self.starting:
            raise model.not_ready()
        ticket = self._ask(model, request.state.user, keep_alive)
        try:
            yield await _granted(ticket, request)
        finally:
            if ticket.cancel():
                self._roster.wake()
            elif not ticket.exception():
                self._release(model)

    def _ask(self, model: ServedModel, user: str, keep_alive: float | None) -> Future[Backend]:
        with self._roster.lock:
            if self._roster.closing:
                raise closing()
            model.keep_alive = self._keep_alive if keep_alive is None else keep_alive
            ticket = Ticket(user)
            model.tickets.append(ticket)
            model.admit()
            if not ticket.model.done():
                self._check_queue(model, ticket)
                self._roster.wake()
        return ticket.model

    def _check_queue(self, model: ServedModel, ticket: Ticket) -> None:
        """As in a model's own queue: one user alone may fill it to the half."""
        users = [one.user for each in self._roster.every for one in each.tickets]
        users += [one.user for each in self._roster.every for one in each.parked]
        mine = users.count(ticket.user)
        if len(users) > self._queue or (mine > -(-self._queue // 2) and self._queue > 1):
            model.tickets.remove(ticket)
            raise ApiError(
                429, f"{len(users) - 1} requests are waiting, {mine - 1} of them yours; try again in 30 s",
                "queue_full", None, {"Retry-After": "30"},
            )  # fmt: skip

    def _release(self, model: ServedModel) -> None:
        with self._roster.lock:
            model.preparing -= 1
            self._roster.ended(model)

    def _backend(self, model: ServedModel, llm: LLM) -> Backend:
        """The server's side of a model that was loaded."""
        return Backend(
            model.name, llm, self._observe, lambda: self._roster.ended(model), self._max_seconds, self._log_prompts,
            self._pooling,
        )  # fmt: skip

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
