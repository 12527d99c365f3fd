"""The model behind the server: loading in a thread of its own, then answering requests of the event loop."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from seventy.engine.llm import LLM
from seventy.engine.request import Event, Failed, Finished, Piece, QueueFull, Request, TooLong
from seventy.engine.scheduler import Scheduler
from seventy.errors import SeventyError
from seventy.server.errors import ApiError
from seventy.text.grammar import Grammars
from seventy.version import __version__

_log = logging.getLogger("seventy.server")


@dataclass(slots=True)
class Loading:
    """What loading is at: `state` is loading, ready or failed."""

    state: str = "loading"
    what: str = "starting"
    done: int = 0
    total: int = 0
    error: str = ""

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 0.0


class Answer:
    """One request on its way through the scheduler, for the event loop that made it."""

    def __init__(
        self,
        scheduler: Scheduler,
        observe: Callable[[Finished], None],
        max_seconds: float | None,
        shown: Callable[[Sequence[int]], str] | None,
    ) -> None:
        """`shown` makes texts of tokens for the log, where they are wanted there."""
        self._scheduler, self._observe, self._max_seconds = scheduler, observe, max_seconds
        self._shown, self._written = shown, list[int]()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._request: Request | None = None
        self._done = False
        self.finished: Finished | None = None

    def submit(self, **options: Any) -> None:
        """Options as of engine.scheduler.Request. ApiError when it cannot be taken."""
        request = Request(deliver=self._deliver, max_seconds=self._max_seconds, **options)
        try:
            self._scheduler.submit(request)
        except TooLong as error:
            raise ApiError(400, str(error), "context_length_exceeded", "messages") from None
        except QueueFull as error:
            raise ApiError(429, str(error), "queue_full", None, {"Retry-After": str(error.retry_after)}) from None
        except SeventyError as error:
            raise ApiError(503, str(error), "shutting_down", None, {"Retry-After": "10"}) from None
        self._request = request
        if self._shown is not None:
            _log.info("prompt: %r", self._shown(request.ids))

    def _deliver(self, event: Event) -> None:
        # By the engine's thread; the loop may be closed when the process ends.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self, every_seconds: float | None = None) -> AsyncIterator[Event | None]:
        """Its events up to the last, Finished; None when nothing came for so long. ApiError where it failed."""
        while not self._done:
            try:
                async with asyncio.timeout(every_seconds):
                    event = await self._events.get()
            except TimeoutError:
                yield None
                continue
            if self._shown is not None and isinstance(event, Piece):
                self._written += event.tokens
            if isinstance(event, Failed):
                self._done = True
                if event.by_request:
                    raise ApiError(400, event.message, "invalid_value")
                raise ApiError(500, event.message, "engine_error")
            if isinstance(event, Finished):
                self._done = True
                self.finished = event
                self._observe(event)
                if self._shown is not None:
                    _log.info("answer: %r", self._shown(self._written))
            yield event

    def cancel(self) -> None:
        """Frees what it holds; nothing when it has ended."""
        if self._request is not None and not self._done:
            self._scheduler.cancel(self._request)


class Backend:
    """Owns the LLM once it is loaded. `load` makes it, told how loading goes; it runs in a thread.

    `max_seconds` is the longest a request may be answered, not counting its time in the queue.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[Callable[[str, int, int], None]], LLM],
        max_seconds: float | None = None,
        log_prompts: bool = False,
        pooling: str | None = None,
    ) -> None:
        self.name = name
        self.log_prompts, self._pooling = log_prompts, pooling
        self._max_seconds = max_seconds
        self.created = int(time.time())
        self.loading = Loading()
        self.observers: list[Callable[[Finished], None]] = []
        self._load = load
        self._llm: LLM | None = None
        self._grammars: Grammars | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="seventy-load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        def progress(what: str, done: int, total: int) -> None:
            if self._closing:
                raise SeventyError("loading was stopped")
            self.loading.what, self.loading.done, self.loading.total = what, done, total

        try:
            self._llm = self._load(progress)
            self._grammars = Grammars(self._llm.tokenizer)
            self.loading.state = "ready"
        except Exception as error:
            if not isinstance(error, SeventyError):
                _log.exception("loading failed")
            self.loading.error = str(error) if isinstance(error, SeventyError) else f"loading failed: {error!r}"
            self.loading.state = "failed"

    def wait(self) -> None:
        """Until loading has ended, well or not."""
        self._thread.join()

    @property
    def llm(self) -> LLM:
        """The model; ApiError 503 while there is none."""
        if self._llm is None:
            raise self._not_ready()
        return self._llm

    @property
    def scheduler(self) -> Scheduler:
        return self.llm.scheduler

    @property
    def grammars(self) -> Grammars:
        if self._grammars is None:
            raise self._not_ready()
        return self._grammars

    @property
    def fingerprint(self) -> str:
        """What a text depends on besides model, request and seed: the version, and the instructions and vector width.

        A timing trial may choose another width at another start (runtime/tuning.py), and sums then round differently.
        """
        return f"seventy-{__version__}-{self.llm.model.isa.name}"

    @property
    def ready(self) -> bool:
        return self.loading.state == "ready" and self.scheduler.alive

    def _not_ready(self) -> ApiError:
        if self.loading.state == "failed":
            return ApiError(503, f"the model could not be loaded: {self.loading.error}", "model_not_loaded")
        share = f"{self.loading.what}, {self.loading.share:.0%}"
        return ApiError(503, f"the model is loading ({share}); try again", "model_loading", None, {"Retry-After": "5"})

    @property
    def pooling(self) -> str | None:
        """How this model's states become an embedding: as it was started with, or as its file says."""
        metadata = self.llm.model.metadata
        kind = metadata.get(f"{metadata.get('general.architecture')}.pooling_type")
        return self._pooling or {1: "mean", 3: "last"}.get(kind)

    def answer(self) -> Answer:
        shown = self.llm.detokenize if self.log_prompts else None
        return Answer(self.scheduler, self._observe, self._max_seconds, shown)

    def _observe(self, finished: Finished) -> None:
        for observer in self.observers:
            observer(finished)

    async def apart(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Work that takes its time (templates, tokens of long texts, grammars) beside the event loop."""
        try:
            return await asyncio.to_thread(partial(work, *arguments, **options))
        except TooLong as error:
            raise ApiError(400, str(error), "context_length_exceeded", "messages") from None
        except SeventyError as error:
            raise ApiError(400, str(error), "invalid_value") from None

    def close(self) -> None:
        """Stop loading, cancel what runs and free the model."""
        self._closing = True
        if self._thread.ident is not None:
            self._thread.join()
        if self._llm is not None:
            self._llm.close()
