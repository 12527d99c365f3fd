"""A line for each request: when, who, what, how it ended, tokens and times; nothing of its text."""

import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seventy.engine.request import Finished

_log = logging.getLogger("seventy.requests")


@dataclass(slots=True)
class Tally:
    """The tokens of all answers to one request, and the seconds of the longest."""

    prompt: int = 0
    cached: int = 0
    written: int = 0
    queued_seconds: float = 0.0
    prompt_seconds: float = 0.0
    decode_seconds: float = 0.0

    def add(self, end: Finished) -> None:
        self.prompt += end.prompt_tokens
        self.cached += end.cached_tokens
        self.written += end.written_tokens
        self.queued_seconds = max(self.queued_seconds, end.queued_seconds)
        self.prompt_seconds = max(self.prompt_seconds, end.prompt_seconds)
        self.decode_seconds = max(self.decode_seconds, end.decode_seconds)


# Of the request that is being handled.
CURRENT: ContextVar[Tally | None] = ContextVar("tally", default=None)


class RequestLog:
    """ASGI middleware around all others: requests that the guard refuses have a line, too.

    `(date) (user or address) (method) (path) (status) (seconds)`, and of answers prompt, cached and written tokens and
    the seconds in the queue, of reading and of writing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status, tally = time.monotonic(), 0, Tally()
        method = scope["method"]

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = CURRENT.set(tally)
        try:
            await self._app(scope, receive, noted)
        finally:
            CURRENT.reset(token)
            user = scope.get("state", {}).get("user") or (scope.get("client") or ("-",))[0]
            # Escaped as it was sent: a line stays a line.
            words = [user, method, quote(scope["path"])[:200], str(status), f"{time.monotonic() - began:.3f} s"]
            if tally.prompt:
                words.append(
                    f"prompt {tally.prompt} cached {tally.cached} written {tally.written} queued "
                    f"{tally.queued_seconds:.3f} read {tally.prompt_seconds:.3f} wrote {tally.decode_seconds:.3f}"
                )
            _log.info("%s", " ".join(words))
