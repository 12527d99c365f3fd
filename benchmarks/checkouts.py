"""Two checkouts of seventy on the same models, by turns: what a change costs or gains.

usage: python benchmarks/checkouts.py OLD NEW MODEL [--pairs 15] [--isa avx2] [--run | --generate]

OLD and NEW are folders of checkouts; both run with this Python. Of each task the medians of both sides and of the
ratios NEW / OLD of each pair are printed, in tokens a second. With --run, `seventy run` is timed end to end instead of
the engine's own passes; with --generate, `LLM.generate` without drafts.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TASKS = ["--prefill", "128", "--users", "4", "--decode-at", "0", "--tokens", "16", "--repeats", "1"]
ASK = "Write a long story about a river, with many names and places."


def environment(checkout: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(checkout).resolve() / "src")}


def bench(checkout: str, model: str, isa: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder) / "card.json"
        command = [sys.executable, "-m", "seventy", "bench", model, *TASKS, *isa, "--report", str(card)]
        subprocess.run(command, env=environment(checkout), check=True, capture_output=True)
        results = json.loads(card.read_text())["results"]
    return {f"{each['what']} {each['n']}": each["tokens_per_second"]["median"] for each in results}


def run(checkout: str, model: str, isa: list[str]) -> dict[str, float]:
    # The same context on both sides: the first prompt touches memory that grows with it.
    options = ["-n", "200", "--temperature", "0", "--ignore-eos", "--context", "4096", *isa]
    command = [sys.executable, "-m", "seventy", "run", model, ASK * 20, *options]
    said = subprocess.run(command, env=environment(checkout), check=True, capture_output=True, text=True).stderr
    rates = re.findall(r"(prompt|answer) \d+ tokens at ([\d.]+) tok/s", said)
    return {what: float(rate) for what, rate in rates}


# 512 tokens of a prompt and 64 of an answer, after a short one that warms up. Older checkouts have no drafts.
GENERATE = """
import inspect, json, sys
from seventy import LLM
off = {"draft": "off"} if "draft" in inspect.signature(LLM).parameters else {}
with LLM(sys.argv[1], context=4096, isa=sys.argv[2] or None, **off) as llm:
    prompt = llm.prompt_ids(sys.argv[3] * 60)[:512]
    llm.generate(prompt[256:320], 16, ignore_eos=True)
    timings = llm.generate(prompt, 64, ignore_eos=True).timings
print(json.dumps({"prompt": timings.prompt_tokens_per_second, "answer": timings.decode_tokens_per_second}))
"""


def generate(checkout: str, model: str, isa: list[str]) -> dict[str, float]:
    command = [sys.executable, "-c", GENERATE, model, "".join(isa[1:]), ASK]
    said = subprocess.run(command, env=environment(checkout), check=True, capture_output=True, text=True).stdout
    rates: dict[str, float] = json.loads(said)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--isa")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--run", dest="time_one", action="store_const", const=run, default=bench)
    what.add_argument("--generate", dest="time_one", action="store_const", const=generate)
    given = parser.parse_args()
    isa, time_one = ["--isa", given.isa] if given.isa else [], given.time_one
    found: dict[str, list[tuple[float, float]]] = {}
    for pair in range(given.pairs + 1):
        sides = [given.old, given.new][:: -1 if pair % 2 else 1]
        both = {side: time_one(side, given.model, isa) for side in sides}
        # The first pair compiles and fills the page cache.
        for task in both[given.old] if pair else ():
            found.setdefault(task, []).append((both[given.old][task], both[given.new][task]))
    for task, rates in found.items():
        ratios = sorted(new / old for old, new in rates)
        old, new = (statistics.median(side) for side in zip(*rates, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(f"{task:12} {old:9.2f} {new:9.2f}  {statistics.median(ratios):.3f} ({low:.3f}-{high:.3f})", flush=True)


if __name__ == "__main__":
    main()
