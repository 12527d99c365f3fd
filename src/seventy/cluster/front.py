"""One address for several machines: a reverse proxy that knows what was read where, and what to do when one is lost.

A request whose machine is lost goes to another one, unless the client has had text of the answer: then the stream says
so. Machines answer HTTP like `seventy serve`, which each of them runs. Nothing of Ray is known here.
"""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from seventy.cluster.routing import Router, prompt_of
from seventy.server.errors import ApiError
from seventy.server.streams import disconnected, event, named_event

PING_SECONDS = 1.0
# A machine without power closes no connection: so many pings in a row without an answer, and it is lost.
_PATIENT_PINGS = 3
_PING_TIMEOUT_SECONDS = 4.0
# How long a request waits for a machine where none answers, and how many it may lose: it may be what ends them.
WAIT_SECONDS = 10.0
_MAX_LOST = 3
# Of one connection, or written anew by the guard here (seventy.server.guard).
_DROPPED = {
    "host", "connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length", "expect", "origin",
    "accept-encoding",
}  # fmt: skip
_DROPPED_BACK = _DROPPED | {"content-security-policy", "x-content-type-options", "referrer-policy", "server", "date"}
# Fields of events that hold text of an answer, in the APIs there are.
_TEXTS = {
    "content", "text", "delta", "reasoning_content", "reasoning", "thinking", "response", "partial_json", "arguments",
}  # fmt: skip
_SEPARATORS = {"text/event-stream": b"\n\n", "application/x-ndjson": b"\n"}
_log = logging.getLogger("seventy.cluster")


class MachineLost(Exception):
    """A machine did not answer to the end."""


class Machine:
    """One machine's engine, and the requests it has."""

    def __init__(self, name: str, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.name, self.is_up = name, True
        self.running: set[asyncio.Timeout] = set()
        # As long as the answer takes: pings say whether the machine is still there.
        timeout, limits = httpx2.Timeout(None, connect=_PING_TIMEOUT_SECONDS), httpx2.Limits(max_connections=None)
        self.client = httpx2.AsyncClient(
            base_url=url, verify=tls or False, timeout=timeout, limits=limits, trust_env=False
        )

    def lose(self) -> None:
        """Let every request that it has fail now."""
        self.is_up = False
        now = asyncio.get_running_loop().time()
        for patience in self.running:
            patience.reschedule(now)

    @contextlib.asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Count a request of its own; raises MachineLost where the machine is lost meanwhile."""
        try:
            async with asyncio.timeout(None) as patience:
                self.running.add(patience)
                try:
                    yield
                finally:
                    self.running.discard(patience)
        except TimeoutError:
            raise MachineLost from None
        except httpx2.TransportError as error:
            _log.warning("%s does not answer: %s", self.name, error or type(error).__name__)
            raise MachineLost from None


class Front:
    """The ASGI application behind a guard (seventy.server.guard), which gives it whole bodies and names of users."""

    def __init__(self) -> None:
        self._machines: dict[Machine, asyncio.Task[None]] = {}
        self._router = Router()

    def add(self, machine: Machine) -> None:
        """Use a machine from now on."""
        self._machines[machine] = asyncio.create_task(self._watch(machine))

    async def remove(self, machine: Machine) -> None:
        """Use a machine no longer; what it has still to answer goes to others."""
        self._machines.pop(machine).cancel()
        self._lose(machine)
        await machine.client.aclose()

    def _lose(self, machine: Machine) -> None:
        machine.lose()
        self._router.forget(machine)

    async def _watch(self, machine: Machine) -> None:
        """Ping a machine; lose it where it does not answer, and use it again once it does."""
        missed = 0
        while True:
            try:
                (await machine.client.get("/health", timeout=_PING_TIMEOUT_SECONDS)).raise_for_status()
                missed, machine.is_up = 0, True
            except httpx2.HTTPError:
                missed += 1
                if missed == _PATIENT_PINGS:
                    self._lose(machine)
            await asyncio.sleep(PING_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/health":
            up = any(machine.is_up for machine in self._machines)
            response = JSONResponse({"status": "ok" if up else "no machine"}, 200 if up else 503)
            return await response(scope, receive, send)
        if scope["path"] == "/cluster":
            return await JSONResponse({"machines": self._shown()})(scope, receive, send)
        body = await request.body()
        answering = asyncio.create_task(self._answer(request, body, _Answer(request, send)))
        gone = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            for task in (answering, gone):
                task.cancel()

    def _shown(self) -> list[dict[str, Any]]:
        return [{"name": each.name, "up": each.is_up, "running": len(each.running)} for each in self._machines]

    async def _answer(self, request: Request, body: bytes, answer: "_Answer") -> None:
        """Answer by the first machine that answers to the end; one that is full or loads only if all are."""
        prompt, user, tried, lost = prompt_of(body), request.state.user, set[Machine](), 0
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while lost < _MAX_LOST:
            left = [each for each in self._machines if each.is_up and each not in tried]
            if not left:
                if asyncio.get_running_loop().time() > deadline:
                    break
                tried.clear()
                await asyncio.sleep(PING_SECONDS / 4)
                continue
            machine = self._router.choose(left, prompt, user)
            tried.add(machine)
            try:
                async with machine.request(), machine.client.stream(
                    request.method, _url(machine, request), headers=_headers(request), content=body
                ) as response:  # fmt: skip
                    if response.status_code not in (429, 503) or len(left) == 1:
                        self._router.served(machine, prompt, user)
                        return await answer.copy(response)
            except MachineLost:
                # Until it answers a ping.
                machine.is_up, lost = False, lost + 1
                if answer.has_text:
                    return await answer.fail(_lost(f"{machine.name} was lost in the middle of this answer; ask again"))
        await answer.fail(_lost("no machine of the cluster answers now; try again"))


def _url(machine: Machine, request: Request) -> httpx2.URL:
    # Not joined: what a client sends may begin with // or name another host.
    path = b"/" + request.scope["raw_path"].removeprefix(b"/")
    query: bytes = request.scope["query_string"]
    return machine.client.base_url.copy_with(raw_path=path + b"?" + query if query else path)


def _headers(request: Request) -> list[tuple[bytes, bytes]]:
    """The client's headers, and that there is a proxy: none of its clients owns the machine (seventy.server.guard)."""
    client = request.client.host if request.client else ""
    kept = [(name, value) for name, value in request.scope["headers"] if name.decode("latin-1") not in _DROPPED]
    return [*kept, (b"x-forwarded-for", client.encode()), (b"accept-encoding", b"identity")]


def _lost(message: str) -> ApiError:
    return ApiError(503, message, "machine_lost", None, {"Retry-After": "5"})


class _Answer:
    """The answer to one request, of one machine or of several after each other; `has_text` once the client has some."""

    def __init__(self, request: Request, send: Send) -> None:
        self._request, self._send = request, send
        self._separator: bytes | None = None
        self.has_text = False

    async def copy(self, response: httpx2.Response) -> None:
        """Send a machine's response as it comes, but for the events before the first text: they wait for it."""
        separator = _SEPARATORS.get(response.headers.get("content-type", "").partition(";")[0])
        if response.status_code != 200 or separator is None:
            content = await response.aread()
            if self._separator is not None:
                return await self.fail(_lost("another machine did not take this request; ask again"))
            await self._start(response)
            return await self._body(content, is_last=True)
        held = b""
        async for piece in response.aiter_raw():
            if self._separator is None:
                await self._start(response)
                self._separator = separator
            if self.has_text:
                await self._body(piece)
                continue
            *whole, rest = (held + piece).split(separator)
            if any(_has_text(each) for each in whole):
                self.has_text = True
                await self._body(held + piece)
                continue
            passing = [each + separator for each in whole if _is_progress(each)]
            held = separator.join([*(each for each in whole if not _is_progress(each)), rest])
            await self._body(b"".join(passing))
        await self._body(held if not self.has_text else b"", is_last=True)

    async def fail(self, error: ApiError) -> None:
        """Send an error: as the response, or as the last event of one that has begun."""
        if self._separator is None:
            response = error.response(self._request.url.path)
            return await response(self._request.scope, self._request.receive, self._send)
        if self._separator == b"\n":
            last = json.dumps({"error": error.message}).encode() + b"\n"
        elif self._request.url.path.startswith("/v1/messages"):
            last = named_event(error.anthropic_body())
        else:
            last = event(error.body())
        await self._body(last, is_last=True)

    async def _start(self, response: httpx2.Response) -> None:
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        kept = [(name, value) for name, value in headers if name.decode("latin-1") not in _DROPPED_BACK]
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": kept})

    async def _body(self, content: bytes, is_last: bool = False) -> None:
        if content or is_last:
            await self._send({"type": "http.response.body", "body": content, "more_body": not is_last})


def _is_progress(piece: bytes) -> bool:
    """Whether an event is none of the answer: a sign of life, or how much of the prompt was read."""
    return piece.startswith(b":") or b'"prompt_progress"' in piece


def _has_text(piece: bytes) -> bool:
    """Whether an event, or a line of JSON, has text of an answer."""
    lines = [line for line in piece.split(b"\n") if not line.startswith((b"event:", b":"))]
    data = b"".join(line.removeprefix(b"data:") for line in lines)
    try:
        return any(_texts(json.loads(data)))
    except ValueError:
        # [DONE]: the answer is there.
        return bool(data.strip())


def _texts(value: Any) -> Iterator[str]:
    for name, part in value.items() if isinstance(value, dict) else ():
        if isinstance(part, str) and name in _TEXTS:
            yield part
        yield from _texts(part)
    for part in value if isinstance(value, list) else ():
        yield from _texts(part)
