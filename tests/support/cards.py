"""Fixtures: a result card of a tiny model, a peer that answers as llama-bench does, a machine's profile."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seventy.bench.card import Card
from seventy.bench.run import Bench, BenchOptions
from seventy.measure.profile import Bandwidth, Profile, describe

# What the fake below prints is the JSON in tools/llama-bench/README.md of ggml-org/llama.cpp, shortened.
FAKE_LLAMA_BENCH = """#!{python}
import json, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print(json.dumps([{{
    "build_commit": "8cf427ff", "build_number": 5163, "cpu_info": "AMD Ryzen 7", "model_filename": given["-m"],
    "n_threads": int(given["-t"]), "type_k": "f16", "flash_attn": False, "n_prompt": int(given["-p"]),
    "n_gen": int(given["-n"]), "n_depth": int(given.get("-d", 0)), "test_time": "2025-04-24T11:58:50Z",
    "avg_ns": 72135640, "stddev_ns": 0, "avg_ts": 7100.002165, "stddev_ts": 0.0, "samples_ns": [72135640],
    "samples_ts": [7100.0],
}}]))
"""


@pytest.fixture(scope="session")
def llama_bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that answers as llama-bench does."""
    path = tmp_path_factory.mktemp("peer") / "llama-bench"
    path.write_text(FAKE_LLAMA_BENCH.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def profile() -> Profile:
    """This machine with limits no tiny model reaches."""
    gops = dict.fromkeys(("generic", "avx", "avx2", "avxvnni", "avx512", "avx512vnni"), 1e6)
    return describe("avx2", [Bandwidth(2, 1, (0,), (0,), 1e4, 9e3)], gops, 1e5, 1.0)


@pytest.fixture(scope="session")
def card(tiny: Path, profile: Profile, llama_bench: Path) -> Card:
    wish = BenchOptions(prompts=(32,), depths=(0, 40), users=(2, 3), tokens=8, repeats=3, watts=50.0, cny_per_kwh=0.6)
    bench = Bench.load(tiny, wish, 2, None)
    try:
        return bench.run(profile, against=str(llama_bench))
    finally:
        bench.model.close()


@pytest.fixture
def changed(card: Card, tmp_path: Path) -> Callable[..., Path]:
    """A file of the card, with the value at a place (keys and indices) replaced."""

    def change(*place: str | int, value: object) -> Path:
        data = at = json.loads(card.text())
        for part in place[:-1]:
            at = at[part]
        at[place[-1]] = value
        path = tmp_path / "card.json"
        path.write_text(json.dumps(data))
        return path

    return change
