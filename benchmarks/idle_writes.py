"""How much slower an answer is written while idle pages go to --cache-dir, beside a model without one.

usage: python benchmarks/idle_writes.py MODEL.gguf [--pairs 7] [--tokens 300] [--prompts 4] [--length 1000]

Both models are loaded; they take turns. Each reads new prompts, waits until their pages are idle long enough to be
written, and then writes an answer: with a folder, while the pages are written. Prints tokens a second of both, how many
bytes were on the disk, and the median of the ratios with its quartiles.
"""

import argparse
import contextlib
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from seventy import LLM
from seventy.cache.store import DiskCache


def answer(llm: LLM, seed: int, wish: argparse.Namespace) -> float:
    """Tokens a second of an answer that begins when the pages of new prompts are about to be written."""
    draw = random.Random(seed)
    for _ in range(wish.prompts):
        llm.generate([draw.randrange(1000, 20000) for _ in range(wish.length)], 1)
    time.sleep(1.9)
    return llm.generate([1, 2, 3, seed % 999 + 4], wish.tokens, ignore_eos=True).timings.decode_tokens_per_second


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    for name, default in (("pairs", 7), ("tokens", 300), ("prompts", 4), ("length", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    wish = parser.parse_args()
    context = wish.length + wish.tokens + 64
    options = {"context": context, "sequences": wish.prompts + 2, "draft": "off", "threads": 2}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        plain = stack.enter_context(LLM(wish.model, **options))
        kept = stack.enter_context(LLM(wish.model, **options, disk=DiskCache(Path(folder), 20 * 10**9)))
        ratios = []
        for pair in range(wish.pairs):
            sides = [(kept, 0), (plain, 1)]
            speeds = [0.0, 0.0]
            for llm, side in sides if pair % 2 else sides[::-1]:
                speeds[side] = answer(llm, pair, wish)
            written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
            ratios.append(speeds[0] / speeds[1])
            print(f"{speeds[0]:.1f} with, {speeds[1]:.1f} without, {ratios[-1]:.3f}; {written / 1e6:.0f} MB")
        low, mid, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"median {mid:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
