"""A machine's engine, a Ray actor: it runs `seventy serve`, and lets the cluster's certificates in.

The engine itself listens on loopback. Before it stands a relay that speaks mutual TLS at this machine's address.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2

from seventy.cluster import key as keys
from seventy.cluster import node

_PIECE_BYTES = 1 << 16
# The engine ends with the actor, however that ends (prctl(2), PR_SET_PDEATHSIG).
_TIED = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class Engine:
    """Runs `seventy serve` on this machine until the actor ends."""

    async def start(self, arguments: list[str], user_keys: str, address: str, port: int) -> tuple[int, str]:
        """Serve a model; return the relay's port and "", or 0 and what the engine said when it ended.

        `arguments` are those of `seventy serve`, `user_keys` the content of a file of keys, `port` the cluster's.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        with tempfile.NamedTemporaryFile("w", prefix="seventy-keys-") as file, _log().open("wb") as output:
            file.write(user_keys)
            file.flush()
            given = ["--api-keys", file.name] if user_keys else []
            command = [sys.executable, "-c", _TIED, "-m", "seventy", "serve", *arguments, *given]
            self._process = await asyncio.create_subprocess_exec(
                *command, "--host", "127.0.0.1", "--port", str(self._port), stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, env={name: value for name, value in os.environ.items() if name != "SEVENTY_API_KEY"},
            )  # fmt: skip
            ready = await self._ready()
        if not ready:
            return 0, _last_line() or "it ended without a word"
        context = keys.server_context(node.folder())
        for plus in node.ENGINES:
            with contextlib.suppress(OSError):
                self._relay = await asyncio.start_server(self._pass_on, address, port + plus, ssl=context)
                return port + plus, ""
        return 0, f"the ports from {port + node.ENGINES[0]} are taken"

    async def ended(self) -> str:
        """Return the engine's last line when it has ended."""
        await self._process.wait()
        self._relay.close()
        return _last_line()

    async def _ready(self) -> bool:
        """Whether the model is loaded, once that is known."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            while self._process.returncode is None:
                with contextlib.suppress(httpx2.HTTPError, ValueError):
                    response = await client.get(f"http://127.0.0.1:{self._port}/health")
                    if response.status_code == 200 and "loading" not in response.json():
                        return True
                await asyncio.sleep(0.2)
        return False

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy bytes both ways until one side ends: the other then ends, too."""
        with contextlib.suppress(OSError), _closing(writer):
            from_engine, to_engine = await asyncio.open_connection("127.0.0.1", self._port)
            with _closing(to_engine):
                ways = [asyncio.create_task(_copy(reader, to_engine)), asyncio.create_task(_copy(from_engine, writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()


def _log() -> Path:
    return node.folder() / "engine.log"


def _last_line() -> str:
    """Return the last thing that the engine said; "" if it said nothing."""
    return (_log().read_text(errors="replace").strip().splitlines() or [""])[-1]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()


@contextlib.contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()
