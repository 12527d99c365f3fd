"""A loaded model as the handlers of requests see it: answers for the event loop, written by the scheduler's thread."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from seventy.engine.llm import LLM
from seventy.engine.ranking import pooling_type
from seventy.engine.request import Event, Failed, Finished, Progress, QueueFull, Request, TextDelta, TooLong
from seventy.engine.scheduler import Scheduler
from seventy.errors import SeventyError, trouble
from seventy.machine.topology import yield_to_others
from seventy.server.errors import ApiError
from seventy.server.request_log import CURRENT
from seventy.text.grammar import Grammars
from seventy.version import __version__

_log = logging.getLogger("seventy.server")
# What comes before an answer: it is not to slow down those that are being written.
PREPARING = ThreadPoolExecutor(8, "seventy-prepare", initializer=yield_to_others)


def too_long(error: TooLong) -> ApiError:
    """Make the error for a prompt that exceeds the context: OpenAI's code with llama.cpp's type and numbers."""
    more = {"type": "exceed_context_size_error", "n_prompt_tokens": error.prompt_tokens, "n_ctx": error.context}
    return ApiError(400, str(error), "context_length_exceeded", "messages", more=more)


class Answer:
    """One request to the scheduler, used in the event loop that created it."""

    def __init__(
        self,
        scheduler: Scheduler,
        observe: Callable[[Finished], None],
        ended: Callable[[], None],
        max_seconds: float | None,
        shown: Callable[[Sequence[int]], str] | None,
    ) -> None:
        """`ended` is called by the engine's thread at the end; `shown` makes texts of tokens for the log, if any."""
        self._scheduler, self._observe, self._ended, self._max_seconds = scheduler, observe, ended, max_seconds
        self._shown, self._written = shown, list[int]()
        self._tally = CURRENT.get()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._request: Request | None = None
        self._done = False
        self.finished: Finished | None = None
        # Whether it has left the queue.
        self.begun = False
        # When it was made, left the queue, wrote its first token; what its prompt had and how much it wrote so far.
        self._times = [time.monotonic()] * 3
        self._prompt_tokens = self._cached_tokens = self._written_tokens = 0

    def submit(self, **options: Any) -> None:
        """Submit the request with the options of engine.request.Request. Raises ApiError if it is refused."""
        request = Request(deliver=self._deliver, max_seconds=self._max_seconds, **options)
        try:
            self._scheduler.submit(request)
        except TooLong as error:
            raise too_long(error) from None
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
        if isinstance(event, Finished | Failed):
            self._ended()

    async def events(self, every_seconds: float | None = None) -> AsyncIterator[Event | None]:
        """Yield events up to the last one, Finished; yield None if none arrived for `every_seconds`.

        Raises ApiError if the request failed.
        """
        while not self._done:
            try:
                async with asyncio.timeout(every_seconds):
                    event = await self._events.get()
            except TimeoutError:
                yield None
                continue
            self._note(event)
            self.begun = self.begun or not (isinstance(event, Progress) and event.queued)
            if self._shown is not None and isinstance(event, TextDelta):
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
                if self._tally:
                    self._tally.add(event)
                if self._shown is not None:
                    _log.info("answer: %r", self._shown(self._written))
            yield event

    def _note(self, event: Event) -> None:
        """Keep what `so_far` tells."""
        now = time.monotonic()
        if isinstance(event, TextDelta):
            if not self._written_tokens:
                self._times[2] = now
            self._written_tokens += len(event.tokens)
        elif not self._written_tokens:
            if not self.begun:
                self._times[1] = now
            self._times[2] = now
            if isinstance(event, Progress):
                self._prompt_tokens, self._cached_tokens = event.total, event.cached

    def so_far(self) -> Finished:
        """Return what there is to tell of it now, as if it ended here; times are those of this event loop."""
        made, begun, first = self._times
        return Finished(
            "stop", self._prompt_tokens, self._cached_tokens, self._written_tokens, begun - made, first - begun,
            time.monotonic() - first,
        )  # fmt: skip

    def cancel(self) -> None:
        """Cancel the request and free its memory. Does nothing if it has ended."""
        if self._request is not None and not self._done:
            # Where the model has left and come back meanwhile, its new scheduler sees that the request is cancelled.
            self._scheduler.cancel(self._request)
            self._ended()


class Backend:
    """A loaded model. When the pool unloads it, answers that are still running keep what they use of it.

    `max_seconds` is the longest time for a request, not counting the queue. `observe` is called with every answer that
    ends, in the event loop; `ended` is called whenever one has ended, by any thread.
    """

    def __init__(
        self,
        name: str,
        llm: LLM,
        observe: Callable[[Finished], None],
        ended: Callable[[], None],
        max_seconds: float | None = None,
        log_prompts: bool = False,
        pooling: str | None = None,
    ) -> None:
        self.name, self.llm = name, llm
        self.scheduler = llm.scheduler
        self.grammars = Grammars(llm.tokenizer)
        # Before anybody's answer is written, which would stand still for half a second.
        self.grammars.prepare()
        # What a text depends on besides model, request and seed: the version, and the instructions and vector width.
        # A timing trial may choose another width at another start (runtime/tuning.py), and sums then round differently.
        self.fingerprint = f"seventy-{__version__}-{llm.model.isa.name}"
        self._observe, self._ended = observe, ended
        self._max_seconds, self._log_prompts, self._pooling = max_seconds, log_prompts, pooling

    @property
    def pooling(self) -> str | None:
        """How hidden states become an embedding: "mean", "last" or "none", from the command line or the file; None if
        neither says.
        """
        # To rank is another question than to embed.
        own = {1: "mean", 3: "last"}.get(pooling_type(self.llm.model.metadata))
        return own if self._pooling in (None, "rank") else self._pooling

    def answer(self, writes: bool = True) -> Answer:
        """Return one for the running event loop. ApiError where a text is wanted of a model that only ranks."""
        if writes and self.llm.ranking and self.llm.ranking.only:
            said = f"{self.name} ranks documents and does not write: ask /v1/rerank"
            raise ApiError(400, said, "not_supported", "model")
        shown = self.llm.detokenize if self._log_prompts else None
        return Answer(self.scheduler, self._observe, self._ended, self._max_seconds, shown)

    async def run_in_thread(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Work that takes its time (templates, tokens of long texts, grammars) beside the event loop."""
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(PREPARING, partial(work, *arguments, **options))
        except TooLong as error:
            raise too_long(error) from None
        except SeventyError as error:
            raise ApiError(400, str(error), "invalid_value") from None
        except (OSError, MemoryError, RuntimeError) as error:
            if (said := trouble(error)) is None:
                raise
            raise ApiError(503, said, "overloaded", None, {"Retry-After": "5"}) from None
