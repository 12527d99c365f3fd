"""Listening: sockets, slow clients, and an end in good order."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from seventy.errors import SeventyError

HEADER_SECONDS = 20.0
# A client that takes nothing for so long is given up; what was written for it waited in memory.
STALLED_SECONDS = 60.0
_MAX_HEADER_BYTES = 32 << 10


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that waits for headers and readers, but not for ever."""

    _header_timer: asyncio.TimerHandle | None = None
    _stalled_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._wait_for_header()
        elif self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._header_timer, self._stalled_timer):
            if timer is not None:
                timer.cancel()
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
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._no_header)

    def _no_header(self) -> None:
        self._header_timer = None
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


class Server(uvicorn.Server):
    """Serves until SIGTERM or Ctrl-C, or until `stop`; running answers may then take `grace_seconds` to end."""

    def __init__(self, app: ASGIApp, grace_seconds: float = 30.0, access_log: bool = False) -> None:
        super().__init__(
            uvicorn.Config(
                app, http=PatientProtocol, ws="none", lifespan="off", log_level="warning", access_log=access_log,
                h11_max_incomplete_event_size=_MAX_HEADER_BYTES, timeout_graceful_shutdown=round(grace_seconds),
                # Longer than clients keep an idle connection (httpx 5 s), else one closes what the other just uses.
                timeout_keep_alive=30, server_header=False, limit_concurrency=1024, backlog=128,
            )
        )  # fmt: skip

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
        """From any thread."""
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; SeventyError says why it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SeventyError(f"cannot listen on {host}: {error.strerror}; give an address of this machine") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno in (98, 48, 10048):
            raise SeventyError(f"port {port} of {host} is taken; choose another with --port") from None
        raise SeventyError(f"cannot listen on {host} port {port}: {error.strerror}; choose others") from None
    return listener
