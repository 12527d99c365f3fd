"""Does one user's request slow down another's? seventy serve beside llama.cpp's server (xllamacpp), taking turns.

usage: python benchmarks/disturbances.py MODEL.gguf [--peer PYTHON] [--seconds 6] [--rounds 3] [--only NAME ...]

One user streams an answer without end. Beside it goes, one after the other: an ordinary second answer, then each
disturbance, asked again and again for as long as it is watched. Shown are the first user's tok/s with the ordinary
second answer and with the disturbance, their ratio (median of rounds; wanted: 0.9 at least), and the longest gap
between two tokens (wanted: under 0.5 s). PYTHON is one that has xllamacpp.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

PEER = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path, p.port, p.n_parallel, p.n_ctx, p.hostnames = sys.argv[1], int(sys.argv[2]), 4, 4 * 8192, ["127.0.0.1"]
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[3])
server = x.Server(p)
time.sleep(1e6)
"""
CONTEXT, IDLE = 8192, 1100
CHAT, TEXT, TOKENS = "/v1/chat/completions", "/v1/completions", "/tokenize"
_HELLO = [{"role": "user", "content": "Hello"}]
_LONG = 8 << 20


def _chat(**more: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": _HELLO, "max_tokens": 400, "temperature": 1, "model": "x", **more}


def _said(text: str) -> tuple[str, dict[str, Any]]:
    return _chat(messages=[{"role": "user", "content": text}])


def _schema(schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return _chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


_NESTED = "root ::= " + "(" * 30 + '"a"?' + ' "b"?)*' * 30
_WIDE = {"anyOf": [{"const": f"value {number}"} for number in range(5000)]}
DISTURBANCES: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
    "left recursion": lambda: _chat(grammar='root ::= root root | "a" | "b"', ignore_eos=True),
    "nullable loop": lambda: _chat(grammar='root ::= (("a"?)*)*', ignore_eos=True),
    "nested optionals": lambda: _chat(grammar=_NESTED, ignore_eos=True),
    "schema of itself": lambda: _schema({"$ref": "#"}),
    "5000 choices": lambda: _schema(_WIDE),
    "8 MB of a": lambda: _said("a" * (_LONG - 1000)),
    "8 MB of spaces": lambda: _said(" " * (_LONG - 1000)),
    "8 MB of words": lambda: _said("word " * (_LONG // 5 - 200)),
    "tokenize 250 kB": lambda: (TOKENS, {"content": "some words, and more " * 12000}),
    "tokenize 8 MB": lambda: (TOKENS, {"content": "a" * (_LONG - 1000)}),
    "text of 200 kB": lambda: (TEXT, {"prompt": "w" * 200_000, "max_tokens": 1, "model": "x"}),
    "ids of 60 kB": lambda: (TEXT, {"prompt": [1] * 20_000, "max_tokens": 1, "model": "x"}),
    "8 MB of messages": lambda: _chat(messages=[{"role": "user", "content": "a"}] * (_LONG // 36)),
    "8 MB of schema": lambda: _schema({"enum": [*range(_LONG // 9)]}),
    "ids of 8 MB": lambda: (TEXT, {"prompt": [1] * (_LONG // 4), "max_tokens": 1, "model": "x"}),
    "bad requests": lambda: (CHAT, {"messages": "none"}),
}


@contextlib.contextmanager
def serving(model: str, peer: str | None) -> Any:
    """The address of a server of its own process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(len(os.sched_getaffinity(0)))
    command = [sys.executable, "-m", "seventy", "serve", model, "--port", str(port), "--threads", threads]
    # Drafts would make the first user's pace one of its text.
    command += ["--context", str(CONTEXT), "--draft", "off"]
    if peer:
        command = [peer, "-c", PEER, model, str(port), threads]
    with tempfile.TemporaryFile() as log:
        few = (1024, 1024)
        process = subprocess.Popen(
            command, stdout=log, stderr=log, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, few)
        )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(1200):
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(url + "/health").status_code == 200:
                        break
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
            yield url
        finally:
            process.kill()
            process.wait()


async def tokens(client: httpx.AsyncClient, prompt: str) -> AsyncIterator[float]:
    """When each token of an answer without end came."""
    body = {
        "prompt": prompt, "max_tokens": CONTEXT - 200, "temperature": 0, "ignore_eos": True, "stream": True,
        "model": "x", "logit_bias": {},
    }  # fmt: skip
    async with client.stream("POST", TEXT, json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield time.perf_counter()


async def watched(url: str, prompt: str, seconds: float, beside: Any) -> tuple[float, float]:
    """A stream's tok/s and longest gap while `beside`, a coroutine function, goes on."""
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        times, task, started, done = list[float](), None, time.perf_counter(), False
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(seconds + 10):
                async for now in tokens(client, prompt):
                    if task is None:
                        task, started = asyncio.create_task(beside()), now
                    if now - started > 0.5:
                        times.append(now)
                    if done := now - started > seconds + 0.5:
                        break
        if not done:
            # It stands still, or is gone.
            times += [started, time.perf_counter()]
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    times.sort()
    gaps = [b - a for a, b in itertools.pairwise(times)]
    return len(gaps) / (times[-1] - times[0]), max(gaps)


async def again_and_again(url: str, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                await client.post(path, content=body, headers=headers)
            await asyncio.sleep(0.01)


async def second_answer(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        async for _ in tokens(client, "Another one tells"):
            pass


async def idle_sockets(url: str) -> None:
    """More connections than a server has descriptors for, which say nothing."""
    host, port = url.removeprefix("http://").split(":")
    held = []
    try:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, int(port))
                held.append((reader, writer))
            if len(held) > IDLE:
                held.pop(0)[1].close()
            await asyncio.sleep(0.002)
    finally:
        for _, writer in held:
            writer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--peer")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[*DISTURBANCES, "idle sockets"])
    wish = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    sides = [("seventy", None), *([("llama.cpp", wish.peer)] if wish.peer else [])]
    seen: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    bodies = {name: (path, json.dumps(body).encode()) for name, make in DISTURBANCES.items() for path, body in [make()]}
    numbers = itertools.count()
    for _ in range(wish.rounds):
        for name, peer in sides:
            for what in wish.only:
                with serving(str(Path(wish.model).resolve()), peer) as url:

                    async def beside(what: str = what, url: str = url) -> None:
                        if what == "idle sockets":
                            await idle_sockets(url)
                        else:
                            await again_and_again(url, *bodies[what])

                    prompt = f"Story {next(numbers)} begins"
                    usual, _ = asyncio.run(watched(url, prompt, wish.seconds, lambda url=url: second_answer(url)))
                    rate, gap = asyncio.run(watched(url, prompt, wish.seconds, beside))
                    seen.setdefault((what, name), []).append((usual, rate, gap))
                    print(f"  {name} {what}: {usual:.1f} {rate:.1f} tok/s, gap {gap:.3f} s", file=sys.stderr)
    print(f"{'beside':18} {'server':10} {'usual':>7} {'tok/s':>7} {'ratio':>6} {'gap s':>6}")
    for (what, name), found in seen.items():
        ratio = statistics.median(rate / usual for usual, rate, _ in found)
        usual, rate = (statistics.median(one[i] for one in found) for i in (0, 1))
        print(f"{what:18} {name:10} {usual:7.1f} {rate:7.1f} {ratio:6.2f} {max(gap for *_, gap in found):6.3f}")


if __name__ == "__main__":
    main()
