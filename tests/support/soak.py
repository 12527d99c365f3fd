"""Requests that are answered, cancelled and cut off, at a server in a process of its own; what they leave of memory."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

AT_ONCE = 12
LOOKS = 240
T = TypeVar("T")


@dataclass
class Process:
    """A server of its own process, and what it says."""

    running: subprocess.Popen[bytes]
    log: Path
    url: str = ""


@contextmanager
def serving(model: Path, log: Path) -> Iterator[Process]:
    """A server of the model, which says what it says in the file `log`."""
    command = [sys.executable, "-m", "seventy", "serve", str(model), "--port", "0", "--context", "512"]
    with log.open("wb") as said:
        # With SIGABRT it says where its threads are.
        environment = os.environ | {"PYTHONFAULTHANDLER": "1"}
        command += ["--threads", "2", "--parallel", "6"]
        running = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
    server = Process(running, log)
    try:
        while not (match := re.search(r"(http://\S+)\n", log.read_text())):
            assert running.poll() is None, log.read_text()
            time.sleep(0.05)
        server.url = match[1]
        yield server
    finally:
        running.kill()
        running.wait()


def body(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    text = "".join(rng.choice("abcdefgh ") for _ in range(rng.randrange(1, 400)))
    return {
        "prompt": text[: rng.choice((20, 400))], "max_tokens": rng.randrange(1, 60), "temperature": 0,
        "ignore_eos": True,
    }  # fmt: skip


def metric(text: str, name: str) -> float:
    match = re.search(rf"^seventy_{name} (\S+)$", text, re.MULTILINE)
    assert match, name
    return float(match[1])


async def one(client: httpx.AsyncClient, seed: int, fate: str) -> str | None:
    """The answer, or None of a request that was given up."""
    wish = body(seed)
    if fate == "cut":
        # Gone before the answer, some while it waits, some while it is written.
        task = asyncio.create_task(client.post("/v1/completions", json=wish | {"max_tokens": 100}))
        await asyncio.sleep(random.Random(seed).random() * 0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return None
    if fate == "left":
        async with client.stream("POST", "/v1/completions", json=wish | {"stream": True}) as response:
            async for _ in response.aiter_bytes(1):
                break
        return None
    response = await client.post("/v1/completions", json=wish)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def client(url: str) -> httpx.AsyncClient:
    # No time limits: `watched` knows a hang from a slow machine. A connection each, that none is cut off half way.
    return httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits(max_keepalive_connections=0))


async def soak(url: str, requests: int, seed: int, wanted: dict[int, str]) -> int:
    """How many were answered, each as it was alone."""
    gate, rng, answered = asyncio.Semaphore(AT_ONCE), random.Random(seed), 0
    async with client(url) as http, asyncio.TaskGroup() as group:

        async def run(number: int, fate: str) -> None:
            nonlocal answered
            async with gate:
                which = number % 40
                text = await one(http, which, fate)
                if text is not None:
                    assert text == wanted[which]
                    answered += 1

        for number in range(requests):
            group.create_task(run(number, rng.choice(("cut", "left", "whole", "whole"))))
    return answered


async def alone(url: str) -> dict[int, str]:
    async with client(url) as http:
        return {number: str(await one(http, number, "whole")) for number in range(40)}


async def settled(url: str) -> str:
    """The numbers once nothing runs any more."""
    async with client(url) as http:
        while True:
            text = (await http.get("/metrics")).text
            if metric(text, "running_requests") == metric(text, "queued_requests") == 0:
                return text
            await asyncio.sleep(0.02)


def watched(server: Process, work: Coroutine[Any, Any, T]) -> T:
    """Its result. Fails, and says where the server's threads are, when the engine makes no step for LOOKS looks.

    Looks are counted, not seconds: a process that was stopped, or a machine with too much to do, is no hang.
    """

    async def watch() -> T:
        task, steps, looks = asyncio.ensure_future(work), 0.0, 0
        async with client(server.url) as http:
            asking = asyncio.ensure_future(http.get("/metrics"))
            while not (await asyncio.wait({task}, timeout=0.5))[0]:
                looks += 1
                assert server.running.poll() is None, server.log.read_text()[-20000:]
                if asking.done():
                    now = metric(asking.result().text, "steps_total")
                    steps, looks = now, looks if now == steps else 0
                    asking = asyncio.ensure_future(http.get("/metrics"))
                if looks > LOOKS:
                    server.running.send_signal(signal.SIGABRT)
                    server.running.wait()
                    raise AssertionError(f"no step in {LOOKS} looks:\n{server.log.read_text()[-20000:]}")
            asking.cancel()
        return task.result()

    return asyncio.run(watch())


def leave_nothing_behind(model: Path, log: Path, requests: int) -> str:
    """So many requests, after half as many more: the server is as it was, and ends when it is told to."""
    with serving(model, log) as process:
        url = process.url
        wanted = watched(process, alone(url))
        memory = psutil.Process(process.running.pid).memory_info
        # What allocators keep, and what drafts remember of texts, grows up to here: of 13,333 requests the last 10,000
        # add 1.2 %.
        watched(process, soak(url, 3 * requests // 2, 1, wanted))
        watched(process, settled(url))
        before = memory().rss
        answered = watched(process, soak(url, requests, 2, wanted))
        numbers = watched(process, settled(url))
        after = memory().rss
        assert answered > requests / 3
        assert metric(numbers, "kv_pages_used") == 0
        assert metric(numbers, "cancelled_total") > requests / 20
        assert metric(numbers, "prefix_hit_tokens_total") > 0
        assert after < before * 1.02, f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} after"
        process.running.send_signal(signal.SIGTERM)
        assert process.running.wait(600) == 0, log.read_text()
    return (
        f"{requests} requests, {answered} answered, {metric(numbers, 'cancelled_total'):.0f} cancelled, "
        f"{metric(numbers, 'preemptions_total'):.0f} preempted; {before / 1e6:.1f} MB before, {after / 1e6:.1f} after"
    )
