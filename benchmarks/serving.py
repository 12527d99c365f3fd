"""Several users at once: seventy serve beside llama.cpp's server, same machine, same run, taking turns.

usage: python benchmarks/serving.py MODEL.gguf [--peer LLAMA_SERVER] [--users 1 4 8] [--tokens 64] [--prompt 64]
                                               [--long 2000] [--slowdown 1.2 2 8] [--rounds 3] [--isa avx2]

LLAMA_SERVER is llama.cpp's, or a Python that has xllamacpp: the same server, prebuilt for AVX2, to be compared with
`--isa avx2`. Both servers get as many threads and as many slots of as much context; everything else is what their
command lines choose (llama.cpp: continuous batching, flash attention where it can, prompts cached). Users send token
ids nobody sent before, ask for a number of tokens and ignore the end; measured is what a client sees.

With --long the users' answers go on without end, and once all of them are being written a prompt of so many tokens
arrives, and half a second later a newcomer with a short one. Such a row shows what the users feel until the long
prompt has its first token; its first token is the newcomer's. Rounds change the order of the servers; a row has the
median of their tok/s and the quantiles of all their times.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

PEER = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path, p.port, p.n_parallel, p.n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[5])
p.hostnames = ["127.0.0.1"]
server = x.Server(p)
time.sleep(1e6)
"""
# More than anybody gets written while a long prompt is read.
ENDLESS = 1024


@dataclass
class Seen:
    """What one client saw: when it asked, when its tokens came, when the answer ended."""

    start: float
    times: list[float] = field(default_factory=list)
    end: float = 0.0

    @property
    def first(self) -> float:
        return self.times[0] - self.start

    def gaps(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Seconds between two tokens, as far as they are of that time."""
        return [b - a for a, b in itertools.pairwise(self.times) if b > since and a < until]


@dataclass
class Result:
    """One measurement of some users. `late` is the time to the first token of a long prompt."""

    rate: float
    firsts: list[float]
    gaps: list[float]
    late: float | None = None


async def ask(client: httpx.AsyncClient, prompt: list[int], tokens: int, seen: Seen) -> Seen:
    body = {
        "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, "model": "x",
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    written = 0
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
                if (chunk.get("choices") or [{}])[0].get("text"):
                    seen.times.append(time.perf_counter())
                written = (chunk.get("usage") or {}).get("completion_tokens", written)
    seen.end = time.perf_counter()
    if written != tokens or not seen.times:
        raise SystemExit(f"{client.base_url} wrote {written} tokens where {tokens} were asked for")
    return seen


def prompt(n: int, rng: random.Random) -> list[int]:
    """Token ids that every vocabulary has."""
    return [rng.randrange(300, 1000) for _ in range(n)]


def now() -> Seen:
    return Seen(time.perf_counter())


async def beside_each_other(url: str, users: int, tokens: int, n_prompt: int, rng: random.Random) -> Result:
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        seen = await asyncio.gather(*(ask(client, prompt(n_prompt, rng), tokens, now()) for _ in range(users)))
    seconds = max(one.end for one in seen) - min(one.start for one in seen)
    return Result(users * tokens / seconds, [one.first for one in seen], [gap for one in seen for gap in one.gaps()])


async def beside_a_long_prompt(url: str, users: int, n_prompt: int, n_long: int, rng: random.Random) -> Result:
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        seen = [now() for _ in range(users)]
        writing = [asyncio.create_task(ask(client, prompt(n_prompt, rng), ENDLESS, one)) for one in seen]
        while not all(one.times for one in seen):
            await asyncio.sleep(0.01)
        late = asyncio.create_task(ask(client, prompt(n_long, rng), 1, now()))
        await asyncio.sleep(0.5)
        newcomer, long = await asyncio.gather(ask(client, prompt(n_prompt, rng), 1, now()), late)
        if any(task.done() for task in writing):
            raise SystemExit(f"{ENDLESS} tokens were written while {n_long} were read; take a larger ENDLESS")
        # The pause that the long prompt made may end after its first token.
        await asyncio.sleep(0.5)
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
    since, until = long.start, long.times[0]
    tokens = sum(since < at <= until for one in seen for at in one.times)
    gaps = [gap for one in seen for gap in one.gaps(since, until)]
    return Result(tokens / (until - since), [newcomer.first], gaps, long.first)


@contextlib.contextmanager
def process(command: list[str], port: str) -> Iterator[str]:
    """A server that is ready."""
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as running:
        try:
            while not _ready(url):
                if running.poll() is not None:
                    said.seek(0)
                    raise SystemExit(f"{command[0]} ended without serving:\n{said.read()[-2000:]}")
                time.sleep(0.25)
            yield url
        finally:
            running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(10)
            running.kill()


def _ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health").status_code == 200
    return False


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def quantiles(values: list[float]) -> str:
    """p50 / p95, in milliseconds."""
    cuts = statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else values * 19
    return f"{1e3 * cuts[9]:.1f} / {1e3 * cuts[18]:.1f}" if cuts else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", type=Path, help="llama.cpp's server, or a Python with xllamacpp")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--slowdown", type=float, nargs="+", default=[2.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", help="as of seventy serve")
    wish = parser.parse_args()

    slots = max(wish.users) + (2 if wish.long else 0)
    context = wish.prompt + wish.tokens + (wish.long + ENDLESS if wish.long else 0)
    # Whole pages, as both servers have them.
    context = -(-context // 256) * 256
    threads, port = str(wish.threads), _port()
    servers = {
        "seventy" if len(wish.slowdown) == 1 else f"seventy, slowdown {slowdown:g}": [
            sys.executable, "-m", "seventy", "serve", str(wish.model), "--port", port, "--parallel", str(slots),
            "--context", str(context), "--threads", threads, "--slowdown", str(slowdown),
            *(["--isa", wish.isa] if wish.isa else []),
        ]
        for slowdown in wish.slowdown
    }  # fmt: skip
    if wish.peer and "python" in wish.peer.name:
        sizes = [str(slots), str(context * slots), threads]
        servers["llama.cpp (xllamacpp)"] = [str(wish.peer), "-c", PEER, str(wish.model), port, *sizes]
    elif wish.peer:
        servers["llama.cpp"] = [
            str(wish.peer), "--model", str(wish.model), "--host", "127.0.0.1", "--port", port, "--parallel",
            str(slots), "--ctx-size", str(context * slots), "--threads", threads, "--threads-batch", threads,
        ]  # fmt: skip
    found: dict[tuple[int, bool, str], list[Result]] = {}
    for number in range(wish.rounds):
        for name, command in list(servers.items())[:: -1 if number % 2 else 1]:
            # The same prompts for each server.
            rng = random.Random(number)
            with process(command, port) as url:
                asyncio.run(beside_each_other(url, slots, 8, wish.prompt, rng))
                for users in wish.users:
                    result = asyncio.run(beside_each_other(url, users, wish.tokens, wish.prompt, rng))
                    found.setdefault((users, False, name), []).append(result)
                    if wish.long:
                        result = asyncio.run(beside_a_long_prompt(url, users, wish.prompt, wish.long, rng))
                        found.setdefault((users, True, name), []).append(result)
    rates = {key: statistics.median(result.rate for result in results) for key, results in found.items()}
    print(f"| server | users | tok/s | over {wish.users[0]} | first token ms | between tokens ms | long prompt s |")
    print("|---|---|---|---|---|---|---|")
    for key, results in sorted(found.items()):
        users, long, name = key
        firsts = quantiles([first for result in results for first in result.firsts])
        gaps = quantiles([gap for result in results for gap in result.gaps])
        late = f"{statistics.median(result.late or 0.0 for result in results):.2f}" if long else ""
        over = "" if long else f"{rates[key] / rates[wish.users[0], False, name]:.2f}"
        print(f"| {name} | {users} | {rates[key]:.1f} | {over} | {firsts} | {gaps} | {late} |")


if __name__ == "__main__":
    main()
