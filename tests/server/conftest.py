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

from seventy import LLM
from seventy.server import app, listen
from seventy.server.backend import Backend
from seventy.server.guard import Rules


@dataclass
class Running:
    """A server that answers, and a client for it."""

    url: str
    backend: Backend
    client: httpx.Client
    server: listen.Server

    @property
    def model(self) -> str:
        return self.backend.name

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


@contextlib.contextmanager
def serving(
    path: Path, context: int = 512, parallel: int = 4, queue: int = 64, rules: Rules | None = None, **options: Any
) -> Iterator[Running]:
    load = options.pop("load", None) or (
        lambda progress: LLM(
            path, threads=2, context=context, sequences=parallel, progress=progress, parallel=parallel, queue=queue
        )
    )
    backend = Backend(path.stem, load, **options)
    server = listen.Server(app.create(backend, rules or Rules()), grace_seconds=5)
    listener = listen.bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    backend.start()
    try:
        with httpx.Client(base_url=url, timeout=120) as client:
            yield Running(url, backend, client, server)
    finally:
        server.stop()
        thread.join()
        backend.wait()
        backend.close()


@pytest.fixture(scope="module")
def random_model(tiny: Path) -> Iterator[Running]:
    """A few hundred kilobytes of random weights: fast, and says anything."""
    with serving(tiny) as running:
        running.backend.wait()
        yield running


@pytest.fixture(scope="module")
def small_model(smollm2: Path) -> Iterator[Running]:
    """SmolLM2: speaks, and has a real tokenizer and template."""
    with serving(smollm2, context=2048) as running:
        running.backend.wait()
        yield running


@pytest.fixture
def serve() -> Callable[..., Any]:
    return serving
