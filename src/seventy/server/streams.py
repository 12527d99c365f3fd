"""Answers that end when their reader goes: server-sent events, lines of JSON, and whole answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from fastapi.responses import Response
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from seventy.server.errors import ApiError

# Proxies and clients take a silent connection for dead.
KEEP_ALIVE_SECONDS = 10.0
T = TypeVar("T")


def event(value: Any) -> bytes:
    """Encode a server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"


def named_event(value: Mapping[str, Any]) -> bytes:
    """Encode a server-sent event named after its `type`."""
    return f"event: {value['type']}\n".encode() + event(value)


DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": waiting\n\n"


class Cancellable(Protocol):
    def cancel(self) -> None:
        """End it early; nothing where it has ended."""
        ...


class Client:
    """Whether the client is still there: cancelled with the answers when it goes."""

    gone = False

    def cancel(self) -> None:
        self.gone = True

    def check(self) -> None:
        """Raise ApiError if the client has gone."""
        if self.gone:
            raise ApiError(499, "the client has gone")


async def disconnected(receive: Receive) -> None:
    """Wait until the client disconnects. Its body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel_on_disconnect(receive: Receive, answers: Sequence[Cancellable]) -> None:
    await disconnected(receive)
    for answer in answers:
        answer.cancel()


async def while_connected(request: Request, answers: Sequence[Cancellable], work: Coroutine[Any, Any, T]) -> T:
    """Run work on answers and return its result; if the client leaves or the work fails, cancel them."""
    watcher = asyncio.create_task(_cancel_on_disconnect(request.receive, answers))
    try:
        return await work
    finally:
        watcher.cancel()
        for answer in answers:
            answer.cancel()


class EventStream(Response):
    """Pieces of a body as they come; errors on the way are sent as a last event, the status being sent already."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        answers: Sequence[Cancellable],
        media_type: str = "text/event-stream",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.pieces, self.answers = pieces, answers
        self.status_code, self.media_type, self.background = 200, media_type, None
        self.body = b""
        # nginx, else, collects the pieces.
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(_cancel_on_disconnect(receive, self.answers))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for piece in self.pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except ApiError as error:
                line = event(error.body()) if self.media_type == "text/event-stream" else _line(error)
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass  # The client is gone, and with it whom to tell.
        finally:
            watcher.cancel()
            for answer in self.answers:
                answer.cancel()


def _line(error: ApiError) -> bytes:
    return json.dumps({"error": error.message}).encode() + b"\n"


async def merged(streams: Sequence[AsyncIterator[T]]) -> AsyncIterator[T]:
    """Merge several streams into one, in order of arrival."""
    if len(streams) == 1:
        async for item in streams[0]:
            yield item
        return

    async def following(stream: AsyncIterator[T]) -> T | None:
        # A task cannot end by StopAsyncIteration.
        return await anext(stream, None)

    def next_of(stream: AsyncIterator[T]) -> asyncio.Task[T | None]:
        return asyncio.create_task(following(stream))

    tasks = {next_of(stream): stream for stream in streams}
    try:
        while tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                stream = tasks.pop(task)
                next_item = task.result()
                if next_item is not None:
                    tasks[next_of(stream)] = stream
                    yield next_item
    finally:
        for task in tasks:
            task.cancel()
