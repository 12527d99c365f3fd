"""Large bodies, which are looked at in a process of their own before anything here reads them.

Reading megabytes of JSON holds Python's lock for tens of milliseconds (lists of numbers for a second), in which no
answer is written. Most bodies of that size hold more text than the context has room for, or no text at all: they are
refused by what the process found in them. What may fit goes on as any other body.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from seventy.engine.request import TooLong
from seventy.errors import SeventyError
from seventy.machine.topology import yield_to_others
from seventy.server.backend import too_long
from seventy.server.errors import ApiError
from seventy.server.guard import replay
from seventy.server.pool import ModelPool
from seventy.text.worker import Worker

# Smaller bodies are read at once: at worst they take some milliseconds.
LARGE_BYTES = 1 << 14
# A field that is no text: schemas and tools that are made to be followed have some kilobytes.
MAX_OTHER_BYTES = 1 << 20
# What may wait to be looked at.
_MAX_WAITING_BYTES = 128 << 20
_SECONDS = 30.0
# The page's conversations, whose oldest turns are left out.
_SHORTENED = "/answers/"
_SCRIPT = Path(__file__).with_name("_weigh.py")


class LargeBodies:
    """ASGI middleware, behind the guard: answers 400 or 413 to large bodies that cannot be meant."""

    def __init__(self, app: ASGIApp, pool: ModelPool) -> None:
        self._app, self._pool = app, pool
        self._worker: Worker | None = None
        self._thread = ThreadPoolExecutor(1, "seventy-large", initializer=yield_to_others)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            # The guard gives it whole.
            body = (await receive()).get("body", b"")
            try:
                if len(body) > LARGE_BYTES:
                    await self._check(body, scope["path"].startswith(_SHORTENED))
            except ApiError as error:
                return await error.response(scope["path"])(scope, receive, send)
            receive = replay(body, receive)
        await self._app(scope, receive, send)

    async def _check(self, body: bytes, shortened: bool) -> None:
        if self._waiting + len(body) > _MAX_WAITING_BYTES:
            said = "too many large requests at once; try again in 5 s"
            raise ApiError(503, said, "overloaded", None, {"Retry-After": "5"})
        self._waiting += len(body)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._look, body, shortened)
        finally:
            self._waiting -= len(body)

    def _look(self, body: bytes, shortened: bool) -> None:
        """ApiError for a body that cannot be meant; `shortened`: what does not fit is left out."""
        found = self._weigh(body)
        if found is None:
            raise ApiError(503, "the request is too large to be read now; send less", "overloaded")
        if not found:
            return
        if wrong := found.get("wrong"):
            raise ApiError(400, f"the body is no JSON that can be read: {wrong}", "invalid_json")
        if found["weight"] > MAX_OTHER_BYTES:
            name = found["field"]
            said = f"{name}: more than {MAX_OTHER_BYTES} bytes beside the text of the prompt; send less"
            raise ApiError(413, said, "field_too_large", name)
        if not shortened and not found["shortened"]:
            self._check_length(found)

    def _check_length(self, found: dict[str, Any]) -> None:
        """ApiError where the text cannot fit into the context of its model, if that is loaded."""
        for llm in self._pool.look(lambda backend: backend.llm, self._pool.find(found["model"])):
            try:
                # Not while the pool's lock is held: the first time takes a while.
                llm.check_tokens(max(llm.tokenizer.fewest_in(found["bytes"], found["words"]), found["ids"]))
            except TooLong as error:
                raise too_long(error) from None

    def _weigh(self, body: bytes) -> dict[str, Any] | None:
        """What the process says of a body, nothing where none can be started; None where it did not bear it."""
        try:
            if self._worker is None:
                self._worker = Worker(self, _SCRIPT, "look at large requests")
        except SeventyError:
            return {}
        found = self._worker.ask(b"%d\n%b" % (len(body), body), _SECONDS)
        if found is None:
            self._worker.end()
            self._worker = None
        return found
