"""Files of the models that are served, for another seventy on the network: `seventy pull NAME --from` this machine.

They are for owners (guard.py), as pulling and deleting are: a guest must not keep disk and network busy. A model is
named as /v1/models lists it, and its files by their number; nothing else of this disk can be asked for.
"""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from starlette.requests import Request as HttpRequest

from seventy.errors import SeventyError
from seventy.hub import sums
from seventy.hub.local import Local, of_path
from seventy.server.errors import ApiError
from seventy.server.guard import check_owner
from seventy.server.pool import ModelPool
from seventy.server.served import ServedModel
from seventy.server.streams import EventStream

_CHUNK_BYTES = 1 << 20
_EVERY_SECONDS = 1.0
_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{0,19})")


class _Sum:
    """The sha256 of a file, computed in a thread for as long as somebody waits for it."""

    def __init__(self, path: Path) -> None:
        self.path, self.done, self.waiting = path, 0, 0
        self.result: str | SeventyError | None = None
        self.ended, self._loop = asyncio.Event(), asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to compute; somebody must wait already."""
        threading.Thread(target=self._work, name="seventy-sum", daemon=True).start()

    def _work(self) -> None:
        try:
            self.result = sums.of_file(self.path, self._progress)
        except SeventyError as error:
            self.result = error
        finally:
            # The loop may be closed when the process ends.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.ended.set)

    def _progress(self, done: int, total: int | None) -> None:
        self.done = done
        if not self.waiting:
            raise SeventyError("the client has gone")


class _Waiting:
    """One client that waits for a sum: a line now and then until it is there."""

    def __init__(self, computed: _Sum) -> None:
        self._sum, self._waits = computed, True
        computed.waiting += 1

    async def lines(self) -> AsyncIterator[bytes]:
        computed = self._sum
        while not computed.ended.is_set():
            yield json.dumps({"done": computed.done}).encode() + b"\n"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await computed.ended.wait()
        if not isinstance(computed.result, str):
            raise ApiError(500, str(computed.result), "unreadable")
        yield json.dumps({"sha256": computed.result}).encode() + b"\n"

    def cancel(self) -> None:
        """Note that the client has disconnected. Computing stops if no other client waits."""
        self._sum.waiting -= self._waits
        self._waits = False


class _Sums:
    """The sums that are being computed, in the event loop: one a file, however many wait for it."""

    def __init__(self) -> None:
        self._running: dict[Path, _Sum] = {}

    def wait_for(self, path: Path) -> _Waiting:
        computed = self._running.get(path)
        # One that nobody waits for is about to stop.
        if computed and computed.waiting and not computed.ended.is_set():
            return _Waiting(computed)
        self._running = {one.path: one for one in self._running.values() if not one.ended.is_set()}
        computed = self._running[path] = _Sum(path)
        waiting = _Waiting(computed)
        computed.start()
        return waiting


def router(pool: ModelPool) -> APIRouter:
    routes, computing = APIRouter(prefix="/files", tags=["other machines"]), _Sums()

    def file_of(model: str, number: int) -> Path:
        """The file of this number of a model that is served."""
        files = Local(pool.find(model, strict=True).path, "").files
        if not 0 <= number < len(files) or not files[number].is_file():
            raise ApiError(404, f"{model[:100]!r} has no file {number}", "file_not_found", "number")
        return files[number]

    @routes.get("")
    async def files(request: HttpRequest) -> dict[str, Any]:
        """List the models that the server offers, and the files of each."""
        check_owner(request)
        return {"models": await asyncio.to_thread(_cards, pool.models)}

    @routes.get("/sum")
    async def sha256(request: HttpRequest, model: str, number: int = 0) -> Response:
        """Return the sha256 of a file in the last line. It is computed first if it is not known."""
        check_owner(request)
        waiting = computing.wait_for(await asyncio.to_thread(file_of, model, number))
        return EventStream(waiting.lines(), [waiting], "application/x-ndjson")

    @routes.get("/content")
    async def content(request: HttpRequest, model: str, sha256: str, number: int = 0) -> Response:
        """Return the bytes of a file, or a range of them. Answers 409 if the file no longer has this sha256."""
        check_owner(request)
        path = await asyncio.to_thread(file_of, model, number)
        if await asyncio.to_thread(sums.known, path) != sha256:
            raise ApiError(409, f"{model[:100]!r} has changed; ask for its sha256 again", "file_changed", "sha256")
        return await asyncio.to_thread(_content, path, request.headers.get("range"), sha256)

    return routes


def _content(path: Path, asked: str | None, sha256: str) -> Response:
    """A file, or the range of it that a header asks for (RFC 9110, one range)."""
    total = path.stat().st_size
    start, end, status, headers = 0, total, 200, {"Accept-Ranges": "bytes", "ETag": f'"{sha256}"'}
    if asked and (match := _RANGE.fullmatch(asked)):
        start, end, status = int(match[1]), min(int(match[2] or total - 1) + 1, total), 206
        if start >= end:
            size = {"Content-Range": f"bytes */{total}"}
            raise ApiError(416, f"the file has {total} bytes", "no_such_range", None, size)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(_pieces(path, start, end), status, headers, "application/octet-stream")


async def _pieces(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < end and (piece := await asyncio.to_thread(file.read, min(_CHUNK_BYTES, end - start))):
            start += len(piece)
            yield piece


def _cards(models: list[ServedModel]) -> list[dict[str, Any]]:
    """What another machine must know of them. Takes time: not in the event loop."""
    found = []
    for model in models:
        local = model.origin or of_path(model.path)
        # One whose file was deleted is left out.
        there = [path for path in local.files if path.is_file()]
        if files := [{"path": _place(local, path), "size": path.stat().st_size} for path in there]:
            found.append({
                "name": model.name, "names": sorted({model.name, *model.aliases, *local.labels}),
                "repository": local.repository or "", "quant": local.quant, "files": files,
            })  # fmt: skip
    return found


def _place(model: Local, path: Path) -> str:
    """Where a file lies in its repository; a name of its own for one that comes from none."""
    if model.repository is None:
        label = re.sub(r"[^\w.-]+", "-", model.label if model.labels else path.stem)
        if path.suffix != ".gguf":
            return f"{label}.gguf"
        # Some programs call every model's file the same.
        return path.name if label in path.name else f"{label}-{path.name}"
    owner, _, name = model.repository.partition("/")
    parts = path.parts
    for at in range(len(parts) - 1):
        if parts[at : at + 2] == (owner, name):
            return "/".join(parts[at + 2 :])
        if parts[at : at + 2] == (f"models--{owner}--{name}", "snapshots"):
            return "/".join(parts[at + 3 :])
    return path.name
