"""Answers for the page, which go on while it is reloaded or its phone sleeps.

Requests to the API stop when their client goes. The page's have a room of their own: an answer that nobody reads goes
on for ALONE_SECONDS at most, one a user, and gives way to everyone who waits. What was written is kept, in memory only,
until the page says that it has it, for KEPT_SECONDS at most: a phone that sleeps may have read nothing of what was
sent.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request as HttpRequest
from starlette.types import Message

from seventy.server import chat
from seventy.server.backend import Answer
from seventy.server.errors import ApiError
from seventy.server.fitting import fit
from seventy.server.pool import ModelPool
from seventy.server.schemas import ChatBody
from seventy.server.streams import DONE, KEEP_ALIVE, KEEP_ALIVE_SECONDS, Cancellable, EventStream, event

ALONE_SECONDS = 600.0
KEPT_SECONDS = 3600.0
# A reload takes no longer; before that nothing is taken from anyone.
GRACE_SECONDS = 5.0
# How often it is seen who reads and who waits.
LOOK_SECONDS = 1.0
# Kept of one user, and of all; the oldest that nobody reads go first.
_MAX_OF_USER, _MAX_OF_ALL, _MAX_BYTES = 8, 256, 64_000_000
_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_log = logging.getLogger("seventy.server")


@dataclass(slots=True, eq=False)
class KeptAnswer:
    """An answer as a list of server-sent events, written by a task and read by any number of readers."""

    user: str
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    done: bool = False
    readers: int = 0
    # Asked again, it begins anew.
    failed: bool = False
    alone_since: float = field(default_factory=time.monotonic)
    sources: Sequence[Cancellable] = ()
    task: asyncio.Task[None] | None = None
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def begun(self) -> bool:
        """Whether it has left the queue."""
        return any(isinstance(source, Answer) and source.begun for source in self.sources)

    def say(self, piece: bytes) -> None:
        """Add an event for all readers."""
        self.pieces.append(piece)
        self.size += len(piece)
        self.wake()

    def wake(self) -> None:
        """Wake all readers to look for new events."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def stop(self, why: str) -> None:
        """End the answer early with a last event that gives the reason. Does nothing if it has ended."""
        if self.done or self.stopped:
            return
        self.say(event({"object": "answer.stopped", "reason": why}))
        self._stopped.set()
        for source in self.sources:
            source.cancel()

    def end(self) -> None:
        """Say that nothing more comes."""
        self.done = True
        self.say(DONE)

    async def follow(self, stream: EventStream) -> None:
        """Take the events of a stream, to its end or until the answer is stopped."""
        self.sources = stream.answers
        try:
            # It may have been stopped while it was being prepared.
            if not self.stopped:
                async for piece in stream.pieces:
                    if piece not in (KEEP_ALIVE, DONE):
                        self.say(piece)
        finally:
            for source in stream.answers:
                source.cancel()

    async def until_stopped(self) -> Message:
        """Wait until the answer is stopped, as an ASGI client that then disconnects."""
        await self._stopped.wait()
        return {"type": "http.disconnect"}

    async def news(self) -> bool:
        """Wait for something new; whether it came before a silent connection would be taken for dead."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                await self._news.wait()
        except TimeoutError:
            return False
        return True


class _Reader:
    """One reader of an answer, for as long as it is connected."""

    def __init__(self, answer: KeptAnswer) -> None:
        self._answer, self._reading = answer, True
        answer.readers += 1

    async def events(self) -> AsyncIterator[bytes]:
        """Yield all events from the first one on, as they arrive."""
        at, answer = 0, self._answer
        while self._reading:
            if at < len(answer.pieces):
                pieces, at = answer.pieces[at:], len(answer.pieces)
                yield b"".join(pieces)
            elif answer.done:
                return
            elif not await answer.news():
                yield KEEP_ALIVE

    def cancel(self) -> None:
        """Note that the reader has disconnected."""
        if self._reading:
            self._reading = False
            self._answer.readers -= 1
            self._answer.alone_since = time.monotonic()
            self._answer.wake()


class AnswerRoom:
    """The answers that are being written for pages, and those that no page said to have yet."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._answers: dict[tuple[str, str], KeptAnswer] = {}
        self._watcher: asyncio.Task[None] | None = None

    def start(self, request: HttpRequest, id: str, body: ChatBody) -> KeptAnswer:
        """Begin an answer; one of this id that the user has begun already, and did not fail, is returned as it is."""
        key = (request.state.user, id)
        if key not in self._answers or self._answers[key].failed:
            answer = self._answers[key] = KeptAnswer(request.state.user)
            # It outlives the request, whose state says who asks.
            lasting = HttpRequest(dict(request.scope), answer.until_stopped)
            answer.task = asyncio.create_task(self._write(answer, lasting, body))
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch())
        return self._answers[key]

    def find(self, user: str, id: str) -> KeptAnswer:
        """Return a user's answer by its id. Raises ApiError 404 if the user has no such answer."""
        if (answer := self._answers.get((user, id))) is None:
            raise ApiError(404, "there is no such answer, or no more", "answer_not_found")
        return answer

    def stop(self, user: str, id: str) -> None:
        """End an answer; forget one that has ended; nothing where there is none of this user's."""
        answer = self._answers.get((user, id))
        if answer is not None and answer.done:
            del self._answers[user, id]
        elif answer is not None:
            answer.stop("stopped")

    def tidy(self) -> None:
        """Stop answers that may not continue without a reader, and drop old ones."""
        now = time.monotonic()
        alone = {answer: now - answer.alone_since for answer in self._answers.values() if not answer.readers}
        running = [answer for answer in alone if not answer.done]
        for answer in running:
            later = any(other.user == answer.user and alone[other] < alone[answer] for other in running)
            if alone[answer] > ALONE_SECONDS:
                answer.stop("alone")
            elif alone[answer] > GRACE_SECONDS and (later or self._others_wait(answer)):
                answer.stop("gave_way")
        for key, answer in list(self._answers.items()):
            if answer.done and alone.get(answer, 0.0) > KEPT_SECONDS:
                del self._answers[key]
        self._bound(alone)

    def _bound(self, alone: dict[KeptAnswer, float]) -> None:
        """Forget the oldest that nobody reads where they are too many, or too large."""
        idle = [(key, answer) for key, answer in self._answers.items() if answer.done and answer in alone]
        idle.sort(key=lambda item: alone[item[1]])
        users, size = dict[str, int](), 0
        for at, (key, answer) in enumerate(idle):
            users[answer.user] = users.get(answer.user, 0) + 1
            size += answer.size
            if at >= _MAX_OF_ALL or users[answer.user] > _MAX_OF_USER or size > _MAX_BYTES:
                del self._answers[key]

    def _others_wait(self, answer: KeptAnswer) -> bool:
        """Whether a request waits that is not this one."""
        waiting = sum(self._pool.look(lambda backend: backend.scheduler.statistics.queued)) + self._pool.waiting
        return waiting > (0 if answer.begun else 1)

    async def _watch(self) -> None:
        while self._answers:
            await asyncio.sleep(LOOK_SECONDS)
            self.tidy()

    async def _write(self, answer: KeptAnswer, request: HttpRequest, body: ChatBody) -> None:
        try:
            async with self._pool.use(request, body.model) as backend:
                fitted = await backend.run_in_thread(fit, backend, body)
            answer.say(
                event({"object": "answer.fitted", "left_out": fitted.left_out, "prompt_tokens": fitted.tokens,
                       "context": fitted.context})
            )  # fmt: skip
            stream = await chat.complete(self._pool, request, fitted.body)
            assert isinstance(stream, EventStream)
            await answer.follow(stream)
        except ApiError as error:
            answer.failed = True
            if not answer.stopped:
                answer.say(event(error.body() | {"status": error.status}))
        except Exception:
            answer.failed = True
            _log.exception("an answer for the page failed")
            answer.say(event(ApiError(500, "the server failed at this request; its log says more").body()))
        finally:
            answer.end()


def router(pool: ModelPool) -> APIRouter:
    """Build the routes of `/answers/ID`, where the page asks; the page chooses the id."""
    routes, room = APIRouter(tags=["page"]), AnswerRoom(pool)

    def stream(answer: KeptAnswer) -> Response:
        reader = _Reader(answer)
        return EventStream(reader.events(), [reader])

    @routes.post("/answers/{id}")
    async def ask(request: HttpRequest, id: str, body: ChatBody) -> Response:
        """Start an answer that continues when its reader disconnects, or resume reading the answer with this id."""
        if not _ID.fullmatch(id):
            raise ApiError(400, "an answer's id is 16 to 64 letters, digits, - and _", "invalid_value", "id")
        # The page shows no probabilities, which are many times as large as the text.
        asked = body.model_copy(update={"stream": True, "n": 1, "logprobs": None, "top_logprobs": None})
        return stream(room.start(request, id, asked))

    @routes.get("/answers/{id}")
    async def read(request: HttpRequest, id: str) -> Response:
        """Stream an answer from its beginning, and continue while it is being written."""
        return stream(room.find(request.state.user, id))

    @routes.delete("/answers/{id}")
    async def stop(request: HttpRequest, id: str) -> Response:
        """Stop an answer and keep the text written so far. If the answer has ended already, discard it."""
        room.stop(request.state.user, id)
        return Response(status_code=204)

    return routes
