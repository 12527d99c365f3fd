"""Several models in one server under clients that ask for different ones, with memory for some of them.

usage: python benchmarks/several.py [--room N] [--clients N] [--seconds N] [--seed N] FILE FILE ...

The server runs in a process of its own and is told that memory ends where N of the largest model fit. Each client asks
one model after the other, by chance, for a short text, until the time is over; what was asked is then answered to the
end. Before each load the file's pages are dropped, so that it comes from the disk; the disk's own speed is measured
on the same files before and after. Shown are errors, requests without an end, the longest wait for a first token and
the bound for it (for each model a minute and a switch, and the longest answer), the server's peak of memory, and how
long switches took beside reading the files.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import psutil

from seventy import LLM
from seventy.cli.pull import unattended
from seventy.engine.footprint import least_and_full
from seventy.engine.model import Progress
from seventy.machine.disk import drop_cached, read_rate
from seventy.server import app, listen
from seventy.server.guard import Rules
from seventy.server.pool import ModelPool
from seventy.server.served import ServedModel
from seventy.server.switch import TURN_SECONDS
from seventy.sizes import size

CONTEXT, PARALLEL, TOKENS = 1024, 8, 16


@dataclass
class Answer:
    """One request: seconds to the first token and to the end, and how it ended."""

    model: str
    first: float
    whole: float
    end: str


class Loads:
    """Loads files from the disk, and notes how long that took."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    def needs(self, path: Path) -> tuple[int, int]:
        return least_and_full(path, CONTEXT, PARALLEL)

    def load(self, path: Path, progress: Progress, memory: int | None) -> LLM:
        drop_cached(path)
        began = time.monotonic()
        llm = LLM(path, None, CONTEXT, sequences=PARALLEL, progress=progress, parallel=PARALLEL, memory=memory)
        self.seconds.append((path.stem, time.monotonic() - began))
        return llm


def serve(paths: list[Path], limit: int, parent: Connection) -> None:
    """A server until the parent says something; tells it the port, then what was loaded."""
    loads, models = Loads(), [ServedModel(path.stem, path) for path in paths]
    pool = ModelPool(models, loads, room=lambda: limit - sum(model.memory_bytes for model in models))
    server, listener = listen.Server(app.create(pool, Rules(), unattended), 30), listen.bind("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    pool.start()
    pool.wait()
    parent.send(listener.getsockname()[1])
    parent.recv()
    server.stop()
    thread.join()
    pool.close()
    parent.send(loads.seconds)


def ask(client: httpx.Client, model: str) -> Answer:
    """One answer, streamed."""
    body = {"model": model, "prompt": "x", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    began, first, end = time.monotonic(), 0.0, "lost"
    try:
        with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                return Answer(model, 0.0, time.monotonic() - began, f"{response.status_code} {response.read()!r}")
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        end = str(chunk["error"])
                    elif chunk["choices"]:
                        first = first or time.monotonic() - began
                        end = chunk["choices"][0]["finish_reason"] or end
    except httpx.HTTPError as error:
        end = repr(error)
    return Answer(model, first, time.monotonic() - began, end)


def main() -> None:
    parser = argparse.ArgumentParser(usage=(__doc__ or "").split("\n")[2])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--room", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    names = [path.stem for path in wanted.files]
    limit = wanted.room * max(least_and_full(path, CONTEXT, PARALLEL)[1] for path in wanted.files)
    disk = [read_rate(path) for path in wanted.files]
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(wanted.files, limit, child))
    process.start()
    port = parent.recv()
    before, peak, over = psutil.Process(process.pid), 0, time.monotonic() + wanted.seconds

    def asking(number: int) -> list[Answer]:
        chance, answers = random.Random(1000 * wanted.seed + number), list[Answer]()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=None) as client:
            while time.monotonic() < over:
                answers.append(ask(client, chance.choice(names)))
        return answers

    with ThreadPoolExecutor(wanted.clients) as threads:
        running = [threads.submit(asking, number) for number in range(wanted.clients)]
        while not all(one.done() for one in running):
            peak = max(peak, before.memory_info().rss)
            time.sleep(0.05)
    answers = [answer for one in running for answer in one.result()]
    parent.send("stop")
    loads = parent.recv()
    process.join()
    disk += [read_rate(path) for path in wanted.files]
    report(answers, loads, peak, limit, {path.stem: path.stat().st_size for path in wanted.files}, disk)


def report(
    answers: list[Answer], loads: list[tuple[str, float]], peak: int, limit: int, sizes: dict[str, int],
    disk: list[float],
) -> None:  # fmt: skip
    bad = [answer for answer in answers if answer.end != "length"]
    lost = sum(answer.end == "lost" for answer in bad)
    print(f"{len(sizes)} models, {len(answers)} answers: {len(bad) - lost} errors, {lost} lost")
    for answer in bad[:5]:
        print(f"  {answer.model}: {answer.end[:200]}")
    waits = sorted(answer.first for answer in answers)
    longest_load, longest_answer = max(s for _, s in loads), max(a.whole - a.first for a in answers)
    bound = len(sizes) * (TURN_SECONDS + longest_load + longest_answer)
    median = statistics.median(waits)
    print(f"wait for a first token: median {median:.2f} s, longest {waits[-1]:.1f} (bound {bound:.0f})")
    print(f"peak of memory {size(peak)}; the models' limit {size(limit)}, the process beside them is not counted in it")
    rates = [sizes[name] / 1e9 / seconds for name, seconds in loads[1:]]
    if rates:
        median, reading = statistics.median(rates), statistics.median(disk)
        print(
            f"{len(rates)} switches: {statistics.median(s for _, s in loads[1:]):.2f} s each, {median:.2f} GB/s of the "
            f"file; the disk alone {reading:.2f} GB/s ({min(disk):.2f} to {max(disk):.2f}): {median / reading:.0%}"
        )


if __name__ == "__main__":
    main()
