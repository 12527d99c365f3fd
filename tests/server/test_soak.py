"""A thousand requests, cancelled, cut off and answered, at a server in a process of its own."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

REQUESTS, AT_ONCE = 1000, 12


@pytest.fixture
def process(tiny: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "seventy", "serve", str(tiny), "--port", "0", "--context", "512", "--threads", "2"]
    server = subprocess.Popen([*command, "--parallel", "6"], stderr=subprocess.PIPE, text=True)
    assert server.stderr
    line = server.stderr.readline()
    match = re.search(r"http://\S+", line)
    assert match, line
    try:
        yield server, match[0]
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


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


async def soak(url: str, requests: int, seed: int, wanted: dict[int, str]) -> int:
    """How many were answered, each as it was alone."""
    gate, rng, answered = asyncio.Semaphore(AT_ONCE), random.Random(seed), 0
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def run(number: int) -> None:
            nonlocal answered
            async with gate:
                fate = rng.choice(("cut", "left", "whole", "whole"))
                which = number % 40
                text = await one(client, which, fate)
                if text is not None:
                    assert text == wanted[which]
                    answered += 1

        await asyncio.gather(*map(run, range(requests)))
    return answered


async def alone(url: str) -> dict[int, str]:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        return {number: str(await one(client, number, "whole")) for number in range(40)}


def settled(url: str) -> str:
    """The numbers once nothing runs any more."""
    for _ in range(600):
        text = httpx.get(f"{url}/metrics").text
        if metric(text, "running_requests") == metric(text, "queued_requests") == 0:
            return text
    raise AssertionError("requests still run")


def test_a_thousand_requests_leave_nothing_behind(process: tuple[subprocess.Popen[str], str]) -> None:
    server, url = process
    wanted = asyncio.run(alone(url))
    memory = psutil.Process(server.pid).memory_info
    asyncio.run(soak(url, 300, 1, wanted))
    settled(url)
    before = memory().rss
    answered = asyncio.run(soak(url, REQUESTS, 2, wanted))
    numbers = settled(url)
    after = memory().rss
    print(
        f"{REQUESTS} requests, {answered} answered, {metric(numbers, 'cancelled_total'):.0f} cancelled, "
        f"{metric(numbers, 'preemptions_total'):.0f} preempted; {before / 1e6:.1f} MB before, {after / 1e6:.1f} after"
    )
    assert answered > REQUESTS / 3
    assert metric(numbers, "kv_pages_used") == 0
    assert metric(numbers, "cancelled_total") > 50
    assert metric(numbers, "prefix_hit_tokens_total") > 0
    assert after < before * 1.02
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait(60) == 0
