"""Several users at once: seventy serve beside llama.cpp's server, same machine, same run, one after the other.

usage: python benchmarks/serving.py MODEL.gguf [--users 1 4 8] [--tokens 64] [--prompt 64] [--peer PYTHON]
                                               [--slowdown 1.2 2 8] [--long 2000] [--rounds 2]

PYTHON has xllamacpp (prebuilt) in it: its server is llama.cpp's own, with as many slots. Users send prompts of their
own, ask for a number of tokens and ignore the end; measured is what a client sees. With --long, one more request with
a prompt of so many tokens arrives while the users' answers are written. Prints a table of total tok/s, time to first
token and the time between tokens (p50, p95). Servers take turns, `rounds` times; the best round of each is shown.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

# Only what the command line of its server would set; everything else is its own choice.
PEER = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path, p.port, p.n_parallel, p.n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[5])
p.hostnames = ["127.0.0.1"]
server = x.Server(p)
print(server.listening_address, flush=True)
time.sleep(100000)
"""


@dataclass
class Seen:
    """What one client saw: seconds to the first token, and between the others."""

    first: float = 0.0
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    start: float = 0.0
    end: float = 0.0


async def ask(client: httpx.AsyncClient, prompt: list[int], tokens: int) -> Seen:
    body = {
        "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, "model": "x",
    }  # fmt: skip
    seen, last = Seen(), time.perf_counter()
    seen.start = last
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            choices = json.loads(line[6:]).get("choices") or [{}]
            now = time.perf_counter()
            if choices[0].get("text"):
                seen.tokens += 1
                if seen.first:
                    seen.gaps.append(now - last)
                else:
                    seen.first = now - seen.start
                last = now
    seen.end = time.perf_counter()
    return seen


def prompt(n: int, seed: int) -> list[int]:
    """Token ids that every vocabulary has."""
    rng = random.Random(seed)
    return [rng.randrange(300, 1000) for _ in range(n)]


Found = tuple[list[Seen], Seen | None]


async def measure(url: str, users: int, tokens: int, n_prompt: int, long: int, seed: int) -> Found:
    limits = httpx.Limits(max_connections=users + 2)
    async with httpx.AsyncClient(base_url=url, timeout=1200, limits=limits) as client:
        tasks = [asyncio.create_task(ask(client, prompt(n_prompt, seed + i), tokens)) for i in range(users)]
        late = None
        if long:
            await asyncio.sleep(0)
            # When every user's answer is being written, as far as can be told from outside.
            while (await client.get("/metrics")).status_code == 200 and not await _writing(client, users):
                await asyncio.sleep(0.05)
            late = await ask(client, prompt(long, seed + 99), 1)
        return list(await asyncio.gather(*tasks)), late


async def _writing(client: httpx.AsyncClient, users: int) -> bool:
    text = (await client.get("/metrics")).text
    match = re.search(r"^(?:seventy_running_requests|llamacpp:requests_processing) ([\d.]+)", text, re.MULTILINE)
    return match is None or float(match[1]) >= users


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[str]:
    """A server that says its address when it is ready."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout
        try:
            for line in running.stdout:
                if match := re.search(r"http://[\d.:]+", line):
                    break
            else:
                raise SystemExit(f"{command[0]} ended without serving")
            # Nobody reads what it says from here on.
            with contextlib.suppress(OSError):
                os.set_blocking(running.stdout.fileno(), False)
            _wait(match[0])
            yield match[0]
        finally:
            running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(10)
            running.kill()


def _wait(url: str) -> None:
    for _ in range(1200):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health").status_code == 200:
                return
        time.sleep(0.25)
    raise SystemExit(f"{url} does not become ready")


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def quantiles(values: list[float]) -> tuple[float, float]:
    """p50 and p95, in milliseconds."""
    if len(values) < 2:
        return (1e3 * values[0],) * 2 if values else (0.0, 0.0)
    cuts = statistics.quantiles(values, n=20)
    return 1e3 * statistics.median(values), 1e3 * cuts[18]


def row(name: str, users: int, found: Found) -> tuple[float, str]:
    seen, late = found
    seconds = max(one.end for one in seen) - min(one.start for one in seen)
    rate = sum(one.tokens for one in seen) / seconds
    first, gaps = quantiles([one.first for one in seen]), quantiles([gap for one in seen for gap in one.gaps])
    text = f"| {name} | {users} | {rate:.1f} | {first[0]:.0f} / {first[1]:.0f} | {gaps[0]:.1f} / {gaps[1]:.1f} |"
    return rate, text + (f" {late.first:.2f} |" if late else " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--users", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--slowdown", type=float, nargs="+", default=[2.0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peer", help="a Python with xllamacpp")
    wish = parser.parse_args()

    most = max(wish.users) + bool(wish.long)
    context = 2 * (wish.prompt + wish.tokens) + 2 * wish.long + 64
    servers = {
        f"seventy, slowdown {slowdown:g}" if len(wish.slowdown) > 1 else "seventy": [
            sys.executable, "-m", "seventy", "serve", str(wish.model), "--port", _port(), "--parallel", str(most),
            "--context", str(context), "--threads", str(wish.threads), "--slowdown", str(slowdown),
        ]
        for slowdown in wish.slowdown
    }  # fmt: skip
    if wish.peer:
        sizes = [str(most), str(context * most), str(wish.threads)]
        servers["llama.cpp"] = [wish.peer, "-c", PEER, str(wish.model), _port(), *sizes]
    best: dict[tuple[str, int], tuple[float, str]] = {}
    for number in range(wish.rounds):
        for name, command in servers.items():
            with process(command) as url:
                asyncio.run(measure(url, 1, 8, 8, 0, 0))
                for users in wish.users:
                    seed = 1000 * number + 100 * users
                    found = asyncio.run(measure(url, users, wish.tokens, wish.prompt, wish.long, seed))
                    best[name, users] = max(best.get((name, users), (0.0, "")), row(name, users, found))
    print("| server | users | tok/s | first token ms p50 / p95 | between tokens ms p50 / p95 | late prompt s |")
    print("|---|---|---|---|---|---|")
    for _, text in sorted(best.items(), key=lambda item: (item[0][1], item[0][0])):
        print(text[1])


if __name__ == "__main__":
    main()
