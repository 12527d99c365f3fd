"""Connections that say nothing: a socket each, until their first byte or their end."""

import asyncio
import contextlib
import errno
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from seventy.server import arrivals, listen
from seventy.server.arrivals import Arrivals
from tests.server.conftest import serving


def test_only_who_says_something_gets_a_protocol(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, connection_made = list[Any](), listen.PatientProtocol.connection_made

    def seen(protocol: listen.PatientProtocol, transport: Any) -> None:
        made.append(protocol)
        connection_made(protocol, transport)

    monkeypatch.setattr(listen.PatientProtocol, "connection_made", seen)
    with serving(tiny) as server, contextlib.ExitStack() as held:
        server.wait()
        made.clear()
        host, port = server.url.removeprefix("http://").split(":")
        # More than a crowd, and who went without a word.
        for at in range(3 * arrivals._CROWD):
            connection = socket.create_connection((host, int(port)))
            connection.close() if at % 3 == 0 else held.enter_context(connection)
        assert httpx.get(server.url + "/health").status_code == 200 and len(made) == 1
        # The last of the silent ones speaks, a byte first.
        connection.sendall(b"G")
        time.sleep(0.1)
        connection.sendall(b"ET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(15) == b"HTTP/1.1 200 OK" and len(made) == 2


def test_what_the_system_lacks_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener(socket.socket):
        lacking = 2

        def accept(self) -> Any:
            if self.lacking:
                self.lacking -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def accepted() -> list[str]:
        told = list[str]()
        loop, come = asyncio.get_running_loop(), asyncio.Event()

        class Said(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                told.append(data.decode())
                come.set()

        loop.set_exception_handler(lambda loop, context: told.append(context["exception"].strerror))
        with Listener() as listener, socket.socket() as client:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            here = Arrivals(Said, lambda: 20.0, lambda silent: False, lambda: False)
            here.listen(listener)
            client.connect(listener.getsockname())
            client.sendall(b"hello")
            await come.wait()
            here.close()
        return told

    monkeypatch.setattr(arrivals, "_LACKING_SECONDS", 0.01)
    assert asyncio.run(accepted()) == ["Too many open files"] * 2 + ["hello"]
