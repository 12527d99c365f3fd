"""Listening: sockets, slow clients, and an end in good order."""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from seventy.errors import SeventyError
from seventy.server.arrivals import Arrivals

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MAX_CONNECTIONS = 1024
# Descriptors for all that is no connection, and how many connections may wait to be accepted.
_RESERVED, _WAITING = 44, 128
COMPLAIN_EVERY_SECONDS = 60.0
_log = logging.getLogger("seventy.server")

HEADER_SECONDS = 20.0
# A client that takes nothing for so long is given up; what was written for it waited in memory.
STALLED_SECONDS = 60.0
_MAX_HEADER_BYTES = 32 << 10
# Bodies are read at this pace, all of them together, after a megabyte at once: the system's share of it, and ours, is
# taken from the answers that are written meanwhile.
_BYTES_A_SECOND, _BYTES_AT_ONCE = 32e6, 1e6


class Complaints:
    """Logs errors of the event loop at a limited rate: a server out of file descriptors fails often."""

    def __init__(self) -> None:
        self._said = dict[str, float]()

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception handler of asyncio."""
        error = context.get("exception")
        if isinstance(error, OSError):
            said = f"{context.get('message')}: {error.strerror or error}"
            now = time.monotonic()
            if now - self._said.get(said, -math.inf) >= COMPLAIN_EVERY_SECONDS:
                self._said = {said: now}
                _log.warning("%s", said)
        else:
            loop.default_exception_handler(context)


def connections_at_once() -> int:
    """Raise the limit of file descriptors and return how many connections it allows."""
    if resource is None:
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 2 * _RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    # A few are in use, and models, templates and connections that are just being accepted want some.
    return max(4, min(MAX_CONNECTIONS, soft - _RESERVED))


class _Pace:
    """How fast bodies may be read."""

    def __init__(self) -> None:
        self._left, self._at = _BYTES_AT_ONCE, time.monotonic()

    def read(self, size: int) -> None:
        """Say that so many bytes were read."""
        now = time.monotonic()
        self._left = min(_BYTES_AT_ONCE, self._left + (now - self._at) * _BYTES_A_SECOND) - size
        self._at = now

    @property
    def wait_seconds(self) -> float:
        """The seconds to wait before the next read."""
        return max(0.0, -self._left / _BYTES_A_SECOND - (time.monotonic() - self._at))


class _PacedFlow(FlowControl):
    """Reads on when it is time: only bodies stop reading (uvicorn's HIGH_WATER_LIMIT), so that others do not wait."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, pace: _Pace) -> None:
        super().__init__(transport)
        self._loop, self._pace = loop, pace
        self._timer: asyncio.TimerHandle | None = None

    def resume_reading(self) -> None:
        if not self.read_paused or self._timer is not None:
            return
        if wait := self._pace.wait_seconds:
            self._timer = self._loop.call_later(wait, self._resume)
        else:
            super().resume_reading()

    def _resume(self) -> None:
        self._timer = None
        # Others may have read meanwhile.
        self.resume_reading()


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that waits for headers and readers, but not for ever."""

    _header_timer: asyncio.TimerHandle | None = None
    _stalled_timer: asyncio.TimerHandle | None = None
    # As many as there is room for.
    max_connections = MAX_CONNECTIONS
    pace = _Pace()
    # Those that wait for a request, the longest first: among a thousand none is looked for.
    _waiting: ClassVar[dict["PatientProtocol", None]] = {}

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _PacedFlow(transport, self.loop, self.pace)
        self._wait_for_header()
        if len(self.connections) > self.max_connections:
            # Itself, where every other is at work.
            self.make_room()

    @classmethod
    def make_room(cls) -> bool:
        """Close the connection that was idle longest; whether there is one."""
        oldest = next((each for each in cls._waiting if each.idle and each in each.connections), None)
        if oldest is not None:
            del cls._waiting[oldest]
            oldest.transport.close()
        return oldest is not None

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)

    def data_received(self, data: bytes) -> None:
        self.pace.read(len(data))
        super().data_received(data)
        self._waiting.pop(self, None)
        if self.conn.their_state is h11.IDLE:
            self._wait_for_header()
        elif self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.idle:
            self._waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._header_timer, self._stalled_timer):
            if timer is not None:
                timer.cancel()
        self._waiting.pop(self, None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None

    def _wait_for_header(self) -> None:
        self._waiting[self] = None
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._no_header)

    def _no_header(self) -> None:
        self._header_timer = None
        if self.idle:
            self.transport.close()


def capitalized(app: ASGIApp) -> ASGIApp:
    """Spell the names of headers as most servers do: some clients look for Access-Control-Allow-Origin only."""

    async def spelled(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_spelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.title(), value) for name, value in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, send_spelled)

    return spelled


class Server(uvicorn.Server):
    """Serves until SIGTERM or Ctrl-C, or until `stop`; running answers may then take `grace_seconds` to end."""

    def __init__(self, app: ASGIApp, grace_seconds: float = 30.0, access_log: bool = False) -> None:
        PatientProtocol.max_connections = room = connections_at_once()
        super().__init__(
            uvicorn.Config(
                capitalized(app), http=PatientProtocol, ws="none", lifespan="off", log_level="warning",
                access_log=access_log, h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
                timeout_graceful_shutdown=round(grace_seconds),
                # Longer than clients keep an idle connection (httpx 5 s), else one closes what the other just uses.
                timeout_keep_alive=30, server_header=False, limit_concurrency=room + 1,
                # So many connections are accepted in one go, before the first of them can be closed again.
                backlog=min(16, room),
            )
        )  # fmt: skip

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(Complaints())
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        connections = self.server_state.connections
        self._arrivals = Arrivals(
            lambda: PatientProtocol(self.config, self.server_state, self.lifespan.state), lambda: HEADER_SECONDS,
            lambda silent: silent + len(connections) > PatientProtocol.max_connections, PatientProtocol.make_room,
        )  # fmt: skip
        try:
            for listener in sockets or ():
                self._arrivals.listen(listener)
            await super().startup([])
        except NotImplementedError:
            # Windows: every connection has a protocol at once.
            await super().startup(sockets)
        for listener in sockets or ():
            # Those that wait to be accepted may be more.
            listener.listen(_WAITING)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._arrivals.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end, and the exit code would not be 0.
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for each in signals:
                loop.add_signal_handler(each, self._on_signal)
        try:
            yield
        finally:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                for each in signals:
                    loop.remove_signal_handler(each)

    def _on_signal(self) -> None:
        # The second one does not wait for the answers.
        self.force_exit, self.should_exit = self.should_exit, True

    def stop(self) -> None:
        """Stop the server. May be called from any thread."""
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address. Raises SeventyError with the reason if it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SeventyError(
            "cannot listen on {host}: {reason}; give an address of this machine",
            host=host, reason=error.strerror,
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno in (98, 48, 10048):
            raise SeventyError(
                "port {port} of {host} is taken; choose another with --port",
                port=port, host=host,
            ) from None
        raise SeventyError(
            "cannot listen on {host} port {port}: {reason}; choose others",
            host=host, port=port, reason=error.strerror,
        ) from None
    return listener
