"""Does one user's request slow down another's? seventy serve, or llama.cpp's server (xllamacpp) with --peer.

usage: python benchmarks/disturbances.py MODEL.gguf [--peer PYTHON] [--seconds 1.2] [--rounds 5] [--only NAME ...]

One user streams an answer without end. Beside it go in turn, each for some seconds: an ordinary second answer, and a
disturbance, asked again and again. Shown are the first user's tok/s beside the one and beside the other, the median
of the ratios of neighbours (wanted: 0.9 at least) with its quartiles, and the longest gap between two tokens beside the
disturbance (wanted: under 0.5 s). The row "another answer" compares the ordinary with itself: what the measure is
good for. "2048 vectors" is compared with itself, too, but for the length of its answer, in windows five times as long.
PYTHON is one that has xllamacpp.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
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
# How long a request goes on before its neighbour's pace counts.
SETTLING = 0.4
ANOTHER, SOCKETS, VECTORS = "another answer", "idle sockets", "2048 vectors"
CHAT, TEXT, TOKENS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/tokenize", "/v1/embeddings"
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
    VECTORS: lambda: (EMBEDDINGS, {"input": ["a"] * 2048}),
}
# What it is compared with where that is no second answer, and so many times as long: the texts are to be read, too.
_ORDINARY = {VECTORS: lambda: (EMBEDDINGS, {"input": ["a"] * 2048, "dimensions": 1})}
_LONGER = {VECTORS: 5}


def _encoded(make: Callable[[], tuple[str, dict[str, Any]]]) -> tuple[str, bytes]:
    path, body = make()
    return path, json.dumps(body).encode()


@contextlib.contextmanager
def serving(model: str, peer: str | None) -> Any:
    """The address of a server of its own process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(len(os.sched_getaffinity(0)))
    command = [sys.executable, "-m", "seventy", "serve", model, "--port", str(port), "--threads", threads]
    # Drafts would make the first user's pace one of its text.
    command += ["--context", str(CONTEXT), "--draft", "off", "--pooling", "mean"]
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


class Watched:
    """A user's stream, begun again whenever it ends, and when its tokens came."""

    def __init__(self, url: str, prompt: str) -> None:
        self.times = list[float]()
        self._url, self._prompt = url, prompt

    async def follow(self) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient(base_url=self._url, timeout=None) as client:
                    async for now in tokens(client, self._prompt):
                        self.times.append(now)
            await asyncio.sleep(0.01)

    async def beside(self, other: Callable[[], Any], seconds: float) -> tuple[float, float]:
        """Tok/s and the longest gap in so many seconds while another coroutine goes on."""
        task = asyncio.create_task(other())
        await asyncio.sleep(SETTLING)
        start = time.perf_counter()
        await asyncio.sleep(seconds)
        end = time.perf_counter()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        inside = [at for at in self.times if start <= at <= end]
        # From the last one before to the end: a stream that stands still has a long gap.
        before = [at for at in self.times if at < start][-1:] or [start]
        gaps = [b - a for a, b in itertools.pairwise([*before, *inside, end])]
        rate = (len(inside) - 1) / (inside[-1] - inside[0]) if len(inside) > 1 else 0.0
        return min(rate, len(inside) / seconds * 1.1), max(gaps)


@dataclass
class Row:
    """What a disturbance cost: tok/s beside an ordinary answer and beside it, their ratios, the longest gap."""

    usual: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    gap: float = 0.0

    def ratios(self) -> list[float]:
        """Each beside the mean of its neighbours: answers grow longer meanwhile."""
        pairs = itertools.pairwise(self.usual)
        return [2 * rate / max(a + b, 1e-9) for rate, (a, b) in zip(self.rates, pairs, strict=True)]


async def compared(url: str, prompt: str, seconds: float, rounds: int, usual: Any, disturbance: Any) -> Row:
    """A user's pace beside an ordinary answer and beside a disturbance, in turn."""
    row, watched = Row(), Watched(url, prompt)
    following = asyncio.create_task(watched.follow())
    try:
        await watched.beside(usual, 0.1)
        row.usual.append((await watched.beside(usual, seconds))[0])
        for _ in range(rounds):
            rate, gap = await watched.beside(disturbance, seconds)
            row.rates.append(rate)
            row.gap = max(row.gap, gap)
            row.usual.append((await watched.beside(usual, seconds))[0])
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return row


async def again_and_again(url: str, path: str, body: bytes) -> None:
    """Requests one after the other on a connection, written whole: this client's own work takes no cores."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                while True:
                    writer.write(request)
                    answer = await reader.readuntil(b"\r\n\r\n")
                    if length := re.search(rb"content-length: (\d+)", answer, re.IGNORECASE):
                        await reader.readexactly(int(length[1]))
                    else:
                        end = b""
                        while not end.endswith(b"\r\n0\r\n\r\n"):
                            piece = await reader.read(1 << 20)
                            if not piece:
                                raise OSError("closed")
                            end = (end + piece)[-16:]
                    await asyncio.sleep(0.01)
            finally:
                writer.close()
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
    parser.add_argument("--seconds", type=float, default=1.2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+")
    wish = parser.parse_args()
    # llama.cpp's server makes vectors only where it writes nothing.
    rows = wish.only or [name for name in (ANOTHER, *DISTURBANCES, SOCKETS) if not (wish.peer and name == VECTORS)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    name = "llama.cpp" if wish.peer else "seventy"
    bodies = {name: _encoded(make) for name, make in DISTURBANCES.items()}
    print(f"{'beside':18} {'server':10} {'usual':>7} {'tok/s':>7} {'ratio':>6} {'quartiles':>10} {'gap s':>6}")
    for number, what in enumerate(rows):
        with serving(str(Path(wish.model).resolve()), wish.peer) as url:

            async def usual(what: str = what, url: str = url) -> None:
                if what in _ORDINARY:
                    await again_and_again(url, *_encoded(_ORDINARY[what]))
                else:
                    await second_answer(url)

            async def disturbance(what: str = what, url: str = url) -> None:
                if what == ANOTHER:
                    await second_answer(url)
                elif what == SOCKETS:
                    await idle_sockets(url)
                else:
                    await again_and_again(url, *bodies[what])

            prompt = f"Story {number} begins"
            seconds = wish.seconds * _LONGER.get(what, 1)
            row = asyncio.run(compared(url, prompt, seconds, wish.rounds, usual, disturbance))
        ratios = row.ratios()
        low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rates = f"{statistics.median(row.usual):7.1f} {statistics.median(row.rates):7.1f}"
        print(f"{what:18} {name:10} {rates} {ratio:6.2f} {low:5.2f}-{high:.2f} {row.gap:6.3f}", flush=True)


if __name__ == "__main__":
    main()
