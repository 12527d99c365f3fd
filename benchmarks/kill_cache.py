"""Kills processes that write a cache to disk at random moments (SIGKILL), and reads back what they left.

usage: python benchmarks/kill_cache.py [--rounds 100] [--seed 1]

Each round a process reads texts into a cache that is too small for them, so that pages and states of recurrent layers
are written all the time, and is killed. Then another cache opens the same texts: whatever it finds must be what
was written for exactly these tokens. Prints what was found, and fails where something was wrong.
"""

import argparse
import os
import random
import signal
import tempfile
import time
import zlib
from array import array
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    wish = parser.parse_args()
    chance, known = random.Random(wish.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cache"
        for number in range(wish.rounds):
            child = os.fork()
            if not child:
                try:
                    write_for_ever(folder, number)
                finally:
                    os._exit(1)
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
