"""Servers on a free port of this machine, in a thread each, for as long as a module's tests."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from seventy import LLM, SeventyError
from seventy.engine.model import Progress
from seventy.hub.local import Local
from seventy.server import app, listen
from seventy.server.backend import Backend
from seventy.server.guard import Rules
from seventy.server.library import Fetch
from seventy.server.pool import ModelPool
from seventy.server.served import ServedModel


@dataclass
class Running:
    """A server that answers, and a client for it."""

    url: str
    pool: ModelPool
    client: httpx.Client
    server: listen.Server

    def wait(self) -> None:
        """Until the first model is loaded, or could not be."""
        self.pool.wait()

    @property
    def backend(self) -> Backend:
        """The default model, loaded."""
        backend = self.pool.default.backend
        assert backend, self.pool.default.error
        return backend

    @property
    def model(self) -> str:
        return self.pool.default.name

    def chat(self, content: Any = "Hello", **options: Any) -> dict[str, Any]:
        messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
        response = self.client.post("/v1/chat/completions", json={"messages": messages, **options})
        assert response.status_code == 200, response.text
        return response.json()

    def idle(self) -> None:
        """Waits until nothing runs; every page must be free then."""
        cache = self.backend.llm.model.cache
        for _ in range(3000):
            if not self.backend.scheduler.busy:
                break
            time.sleep(0.02)
        assert cache.free_pages == cache.n_pages


@dataclass
class Loads:
    """Loads models for a pool; with `bytes_each`, every model is said to need so much memory."""

    context: int
    parallel: int = 4
    queue: int = 64
    bytes_each: int = 0
    instead: Callable[[Progress], LLM] | None = None

    def needs(self, path: Path) -> tuple[int, int]:
        return self.bytes_each, self.bytes_each

    def load(self, path: Path, progress: Progress, memory: int | None) -> LLM:
        if self.instead:
            return self.instead(progress)
        return LLM(
            path, 2, self.context, sequences=self.parallel, progress=progress, parallel=self.parallel, queue=self.queue
        )


def no_fetching(name: str, progress: Any) -> Local:
    raise SeventyError(f"nothing is fetched in this test, nor {name}")


@contextlib.contextmanager
def running(
    pool: ModelPool, rules: Rules | None = None, fetch: Fetch = no_fetching, page: app.PageOptions | None = None,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app, port: int = 0,
) -> Iterator[Running]:
    """A server of these models, on a free port of this machine where none is given."""
    server = listen.Server(around(app.create(pool, rules or Rules(), fetch, page)), grace_seconds=5)
    listener = listen.bind("127.0.0.1", port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    pool.start()
    try:
        with httpx.Client(base_url=url, timeout=120) as client:
            yield Running(url, pool, client, server)
    finally:
        server.stop()
        thread.join()
        pool.wait()
        pool.close()


@contextlib.contextmanager
def serving(
    path: Path, context: int = 512, parallel: int = 4, queue: int = 64, rules: Rules | None = None, **options: Any
) -> Iterator[Running]:
    """A server of one model; `load` makes it in another way, told how far it is."""
    loads = Loads(context, parallel, queue, instead=options.pop("load", None))
    more = {name: options.pop(name) for name in ("page", "around", "port") if name in options}
    with running(ModelPool([ServedModel(path.stem, path)], loads, **options), rules, **more) as server:
        yield server


@pytest.fixture(scope="module")
def random_model(tiny: Path) -> Iterator[Running]:
    """A few hundred kilobytes of random weights: fast, and says anything."""
    with serving(tiny) as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def small_model(smollm2: Path) -> Iterator[Running]:
    """SmolLM2: speaks, and has a real tokenizer and template."""
    with serving(smollm2, context=2048) as server:
        server.wait()
        yield server


@pytest.fixture
def serve() -> Callable[..., Any]:
    return serving
