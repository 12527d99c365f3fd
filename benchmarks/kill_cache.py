"""Kills processes that write a cache to disk at random moments (SIGKILL), and reads back what they left.

usage: python benchmarks/kill_cache.py [--rounds 100] [--seed 1] [--server MODEL.gguf]

Each round a process reads texts into a cache that is too small for them, so that pages and states of recurrent layers
are written all the time, and is killed. Then another cache opens the same texts: whatever it finds must be what
was written for exactly these tokens. Prints what was found, and fails where something was wrong.

With `--server` whole servers are killed (`seventy serve MODEL --cache-dir`) while texts are written, each at a random
moment of its first seconds; the next one finds what is there, and must say the same with the same log-probabilities, to
the last digit, as a server without a cache on disk.
"""

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from seventy.cache.fetch import fetch
from seventy.cache.pages import Pages
from seventy.cache.prefix import PrefixCache, Sequence
from seventy.cache.spec import Paged, Recurrent
from seventy.cache.states import States
from seventy.cache.store import DiskCache, PageStore
from seventy.kernels.pages import PAGE

LAYERS = [Paged(2, 64, 64), Recurrent(((16, 64),))]
PAGES, STATES, TEXTS, LENGTH, MAX_BYTES = 24, 8, 12, 12 * PAGE, 4_000_000


def mark(tokens: list[int]) -> int:
    """What pages and states hold of these tokens here."""
    return zlib.crc32(array("i", tokens).tobytes())


def opened(folder: Path) -> PrefixCache:
    cache = PrefixCache(Pages(LAYERS, PAGES, "f16"), States(LAYERS, STATES))
    cache.attach(PageStore(DiskCache(folder, MAX_BYTES), b"model"))
    return cache


def text(number: int) -> list[int]:
    """One of several texts of which some begin alike."""
    chance = random.Random(number)
    shared = random.Random(number % 3)
    return [shared.randrange(1000) for _ in range(LENGTH // 2)] + [chance.randrange(1000) for _ in range(LENGTH // 2)]


def read(cache: PrefixCache, tokens: list[int]) -> int:
    """Read a text as the engine does, checking what the cache knows of it; how many tokens it knew."""
    sequence = Sequence(cache, LENGTH + PAGE)
    fetch(cache, tokens)
    known = sequence.open(tokens)
    views = cache.memory.layer(0).view(np.uint32)
    for at in range(known // PAGE):
        wanted = mark(tokens[: (at + 1) * PAGE])
        assert (views[:, sequence.pages[at]] == wanted).all(), f"page {at} is not of these tokens"
    if known:
        state = cache.states.view(sequence.states[0]).view(np.uint32)
        assert (state == mark(tokens[:known])).all(), "the state is not of these tokens"
    while sequence.length < len(tokens):
        n = sequence.until_mark(min(PAGE, len(tokens) - sequence.length))
        sequence.reserve(sequence.length + n)
        whole = tokens[: sequence.length + n]
        views[:, sequence.pages[sequence.length // PAGE]] = mark(whole)
        cache.states.view(sequence.states[1]).view(np.uint32)[:] = mark(whole)
        sequence.commit(whole[sequence.length :])
    sequence.close()
    return known


def write_for_ever(folder: Path, seed: int) -> None:
    cache, chance = opened(folder), random.Random(seed)
    while True:
        read(cache, text(chance.randrange(TEXTS)))


QUESTIONS = 8


def ask(url: str, number: int) -> tuple[object, int]:
    """What a server says to a long text, token by token with their log-probabilities; how many tokens it knew."""
    words = [f"word{at * 7919 % (97 + number % 2)}" for at in range(120)]
    body = {"prompt": f"{' '.join(words)} {number}", "n_predict": 8, "temperature": 0, "n_probs": 3}
    request = urllib.request.Request(
        f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        said = json.load(answer)
    return (said["content"], said["completion_probabilities"]), said["timings"]["cache_n"]


@contextmanager
def server(model: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "seventy", "serve", model, "--port", str(port), "--threads", "2", "--draft", "off"]
    # Room for one or two texts, so that others are evicted.
    command += ["--context", "1024", "--parallel", "1", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                break
            assert process.poll() is None, "the server ended"
            time.sleep(0.05)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def kill_servers(model: str, rounds: int, chance: random.Random) -> None:
    with server(model) as (_, url):
        right = [ask(url, number)[0] for number in range(QUESTIONS)]
    known = answers = 0
    with tempfile.TemporaryDirectory() as folder:
        for killed in range(1, rounds + 1):
            with server(model, "--cache-dir", folder, "--cache-gb", "0.05") as (process, url):
                threading.Timer(chance.uniform(0.05, 4.0), process.send_signal, [signal.SIGKILL]).start()
                with suppress(OSError, http.client.HTTPException):
                    while True:
                        number = chance.randrange(QUESTIONS)
                        said, cached = ask(url, number)
                        assert said == right[number], f"text {number} with {cached} tokens known: {said}"
                        known, answers = known + cached, answers + 1
                        # Now and then nothing is asked for so long that what is idle is written.
                        time.sleep(chance.choice((0.0, 0.0, 0.0, 2.2)))
                assert process.wait() == -signal.SIGKILL, "the server ended by itself"
            if not killed % 10 or killed == rounds:
                said = f"{answers} answers, all right, {known} of their tokens found again"
                print(f"{killed} servers killed: {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", metavar="MODEL")
    wish = parser.parse_args()
    chance, known = random.Random(wish.seed), 0
    if wish.server:
        return kill_servers(wish.server, wish.rounds, chance)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cache"
        for number in range(wish.rounds):
            child = os.fork()
            if not child:
                try:
                    write_for_ever(folder, number)
                finally:
                    os._exit(1)
            # Every other one is killed when some texts are there from their beginning, on a busy machine, too.
            while number % 2 and len(list(folder.rglob("*.kv"))) < 3 * LENGTH // PAGE:
                time.sleep(0.005)
            time.sleep(chance.uniform(0.005, 0.15))
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            assert os.WTERMSIG(status) == signal.SIGKILL, f"the writer ended by itself, {status}"
            after = os.fork()
            if not after:
                # A process of its own: the store has a thread, and this process forks.
                code = 251
                try:
                    cache = opened(folder)
                    code = min(sum(read(cache, text(each)) for each in range(TEXTS)) // PAGE, 250)
                finally:
                    os._exit(code)
            status = os.waitpid(after, 0)[1]
            assert os.WIFEXITED(status) and os.WEXITSTATUS(status) < 251, "what was read back was wrong"
            known += os.WEXITSTATUS(status)
            size = sum(path.stat().st_size for path in folder.rglob("*.kv"))
            assert size <= MAX_BYTES, f"{size} bytes of {MAX_BYTES}"
        unfinished = len(list(folder.rglob("*.part")))
    print(f"{wish.rounds} kills: {known} pages found again, all right; {unfinished} unfinished files, none taken")


if __name__ == "__main__":
    main()
