"""Ollama's API about the models themselves: which there are, what is in them, which are loaded; pull, delete and copy.

Changing what is on this disk is for owners (guard.py). A pull takes names of models and of repositories on the hubs,
never a path or an address; a delete takes only what is in seventy's own folder; a copy is one more name for the same
bytes, there.
"""

import asyncio
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.requests import Request as HttpRequest

from seventy.catalog.quants import quant_of
from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.hub import store
from seventy.hub.download import Progress
from seventy.hub.listing import SHARD
from seventy.hub.local import Local
from seventy.server.errors import ApiError
from seventy.server.guard import check_owner
from seventy.server.pool import ModelPool
from seventy.server.schemas import Body
from seventy.server.served import ServedModel
from seventy.server.streams import EventStream, while_connected
from seventy.text.conventions import Conventions
from seventy.version import __version__

# Fetches a model by a name of a hub's, or finds it on this disk.
Fetch = Callable[[str, Progress], Local]

_COPY = re.compile(r"\w[\w.-]{0,99}(:\w[\w.-]{0,99})?")
_LINE_EVERY_SECONDS = 0.2


class Named(Body):
    """A model, named by `model` or by `name`, which older clients send."""

    model: str = ""
    name: str = ""

    @property
    def wanted(self) -> str:
        if not (self.model or self.name):
            raise ApiError(400, "which model? send its name as `model`", "invalid_value", "model")
        return self.model or self.name


class Pull(Named):
    stream: bool = True


class Copy(Body):
    source: str = Field(min_length=1)
    destination: str = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Facts:
    """The metadata of a model file that the API reports."""

    size: int
    family: str
    parameters: int
    quant: str
    template: str
    license: str
    metadata: dict[str, Any]

    @property
    def details(self) -> dict[str, Any]:
        billions = self.parameters / 1e9
        return {
            "parent_model": "", "format": "gguf", "family": self.family, "families": [self.family],
            "parameter_size": f"{billions:.1f}B" if billions >= 1 else f"{1000 * billions:.2f}M",
            "quantization_level": self.quant,
        }  # fmt: skip

    @property
    def capabilities(self) -> list[str]:
        pooling = self.metadata.get(f"{self.family}.pooling_type", 0)
        if made_for := {1: "embedding", 3: "embedding", 4: "rerank"}.get(pooling):
            return [made_for]
        thinking = ["thinking"] if Conventions.of(self.template).thinks else []
        return ["completion", "tools", *thinking]


_UNKNOWN = Facts(0, "", 0, "", "", "", {})


def facts(model: ServedModel) -> Facts:
    """Read the file's header, once while it stays the same. Takes time: not in the event loop."""
    try:
        status = model.path.stat()
        return _read(model.path, status.st_mtime_ns, status.st_size)
    except (OSError, SeventyError):
        # Gone, or damaged: it is still listed, and says why when it is asked for.
        return _UNKNOWN


@lru_cache(256)
def _read(path: Path, modified: int, nbytes: int) -> Facts:
    with GGUF(path) as gguf:
        metadata = {key: value for key, value in gguf.metadata.items() if isinstance(value, str | int | float)}
        return Facts(
            size=sum(file.stat().st_size for file in gguf.paths),
            family=str(metadata.get("general.architecture", "")),
            parameters=sum(prod(tensor.shape) for tensor in gguf.tensors.values()),
            quant=quant_of(path.name) or gguf.main_type or "",
            template=str(metadata.pop("tokenizer.chat_template", "")),
            license=str(metadata.get("general.license", "")),
            metadata=metadata,
        )


class _Download:
    """A pull in a thread of its own, and its lines for the client."""

    def __init__(self, fetch: Fetch, name: str) -> None:
        self._fetch, self._name = fetch, name
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[dict[str, Any] | Local | SeventyError] = asyncio.Queue()
        self._cancelled, self._told = False, 0.0
        threading.Thread(target=self._work, name="seventy-pull", daemon=True).start()

    def _work(self) -> None:
        try:
            self._put(self._fetch(self._name, self._progress))
        except SeventyError as error:
            self._put(error)
        except Exception as error:
            self._put(SeventyError("the download failed ({error}); this is a bug", error=repr(error)))

    def _progress(self, done: int, total: int | None) -> None:
        if self._cancelled:
            raise SeventyError("the client has gone; pull again to go on from here")
        if done == total or time.monotonic() - self._told >= _LINE_EVERY_SECONDS:
            self._told = time.monotonic()
            line = {"status": f"pulling {self._name}", "digest": self._name, "total": total or 0, "completed": done}
            self._put(line)

    def _put(self, item: dict[str, Any] | Local | SeventyError) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._lines.put_nowait, item)

    async def lines(self, arrived: Callable[[Local], None]) -> AsyncIterator[dict[str, Any]]:
        """Yield progress messages for the client until the download ends. Raises ApiError if it fails."""
        yield {"status": "pulling manifest"}
        while isinstance(item := await self._lines.get(), dict):
            yield item
        if isinstance(item, SeventyError):
            raise ApiError(400, str(item), "pull_failed", "model")
        arrived(item)
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            yield {"status": status}

    def cancel(self) -> None:
        """Stop at the next bytes; what has come stays for the next pull."""
        self._cancelled = True


def served(model: Local, *asked: str) -> ServedModel:
    """Make a ServedModel of a model on this disk, named after its store or its file.

    Its aliases are the names it was `asked` for and the name that `seventy models` shows, never a path.
    """
    label = [model.label] if model.label != str(model.path) else []
    stem = SHARD.sub(r"\g<prefix>", model.path.name).removesuffix(".gguf")
    return ServedModel(model.labels[0] if model.labels else stem, model.path, frozenset([*asked, *label]), model)


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _card(model: ServedModel) -> dict[str, Any]:
    """What lists say of a model. Takes time: not in the event loop."""
    found = facts(model)
    # Ollama's is a sha256 of the model's description; this one, too, changes with the file and is not of its bytes.
    digest = hashlib.sha256(f"{model.path} {found.size} {model.created}".encode()).hexdigest()
    return {
        "name": model.name, "model": model.name, "modified_at": _instant(model.created), "size": found.size,
        "digest": digest, "details": found.details,
    }  # fmt: skip


def router(pool: ModelPool, fetch: Fetch) -> APIRouter:
    routes = APIRouter(tags=["Ollama"])

    @routes.get("/api/tags")
    async def tags() -> dict[str, Any]:
        """List the models that the server offers."""
        return {"models": await asyncio.to_thread(lambda: [_card(model) for model in pool.models])}

    @routes.get("/api/ps")
    async def running() -> dict[str, Any]:
        """List the loaded models, and when each will be unloaded."""

        def card(model: ServedModel) -> dict[str, Any]:
            left = model.expires - time.monotonic()
            never = datetime.max.replace(tzinfo=UTC)
            until = never if left == math.inf else datetime.now(UTC) + timedelta(seconds=left)
            context = next(iter(pool.look(lambda backend: backend.llm.context, model)), 0)
            memory = {"size": model.memory_bytes, "size_vram": 0, "context_length": context}
            return _card(model) | memory | {"expires_at": until.isoformat().replace("+00:00", "Z")}

        def cards() -> list[dict[str, Any]]:
            return [card(model) for model in pool.models if model.ready]

        return {"models": await asyncio.to_thread(cards)}

    @routes.get("/api/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @routes.post("/api/show")
    async def show(body: Named) -> dict[str, Any]:
        """Describe a model, loaded or not."""
        model = pool.find(body.model or body.name, strict=True)
        found = await asyncio.to_thread(facts, model)
        info = {**found.metadata, "general.parameter_count": found.parameters}
        # Of a loaded model, as it was loaded.
        for llm in pool.look(lambda backend: backend.llm, model):
            info[f"{found.family}.context_length"] = llm.context
            found = replace(found, template=llm.chat_format.source)
        return {
            "modelfile": f"FROM {model.name}\n", "parameters": "", "template": found.template, "license": found.license,
            "details": found.details, "model_info": info, "capabilities": found.capabilities,
            "modified_at": _instant(model.created),
        }  # fmt: skip

    @routes.post("/api/pull")
    async def pull(request: HttpRequest, body: Pull) -> Response:
        """Download a model from a hub and serve it."""
        check_owner(request)
        download = _Download(fetch, body.wanted)
        lines = download.lines(lambda model: pool.add(served(model, body.wanted)))
        if body.stream:
            encoded = (json.dumps(line).encode() + b"\n" async for line in lines)
            return EventStream(encoded, [download], "application/x-ndjson")

        async def last() -> dict[str, Any]:
            return [line async for line in lines][-1]

        return JSONResponse(await while_connected(request, [download], last()))

    @routes.delete("/api/delete")
    async def delete(request: HttpRequest, body: Named) -> Response:
        """Delete a model that seventy downloaded. Answers that are being written are finished first."""
        check_owner(request)
        model = pool.find(body.wanted, strict=True)
        if not store.is_ours(model.path):
            raise ApiError(403, f"{model.name!r} is not in seventy's own folder: delete it where it is", "not_ours")
        await _changing(store.remove, Local(model.path, "").files)
        for each in pool.models:
            if each.path == model.path:
                pool.remove(each)
        return Response(status_code=200)

    @routes.post("/api/copy")
    async def copy(request: HttpRequest, body: Copy) -> Response:
        """Give a model a second name."""
        check_owner(request)
        model, name = pool.find(body.source, strict=True), body.destination.removesuffix(":latest")
        if not _COPY.fullmatch(name):
            raise ApiError(400, "a model is called by letters, digits, . _ - and one :", "invalid_value", "destination")
        path = await _changing(store.link, Local(model.path, "").files, name)
        pool.add(ServedModel(name, path))
        return Response(status_code=200)

    return routes


async def _changing(work: Callable[..., Any], *arguments: Any) -> Any:
    """Work on the disk, in a thread."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except SeventyError as error:
        raise ApiError(400, str(error), "invalid_value") from None
