"""The engine beside a family's float forward pass: the bars that every architecture has to keep."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np

from seventy import LLM
from seventy.engine.model import Model, Segment
from seventy.jit.isa import supported
from tests.support.oracle import llama_cpp_logits

LENGTHS, STEPS = (1, 7, 64, 65, 200), 16
IDS = np.random.default_rng(1).integers(0, 256, max(LENGTHS) + STEPS).tolist()


def families(*names: str) -> dict[str, ModuleType]:
    """Return the modules that write and compute these families, by name."""
    return {name: importlib.import_module(f"tests.support.families.{name}") for name in names}


def corners(families: Mapping[str, ModuleType], twins: bool = True) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what the writer is given in each case of each family: those of TWINS, too, as they are."""
    cases = {(name, case): given for name, family in families.items() for case, given in family.CASES.items()}
    if twins:
        cases |= {(name, case): own for name, family in families.items() for case, (own, _) in family.TWINS.items()}
    return cases


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def decode(model: Model, ids: list[int], prompt: int) -> np.ndarray:
    """The logits of the tokens after the prompt, read in one pass, each in a step of its own."""
    sequence, rows = model.new_sequence(), []
    for first, last in [(0, prompt), *((at, at + 1) for at in range(prompt, len(ids)))]:
        sequence.reserve(last)
        step = model.step([Segment(first, ids[first:last], 1, sequence.pages, sequence.states)])
        rows.append(step.logits[0].copy())
        sequence.commit(ids[first:last])
    sequence.close()
    return np.array(rows[1:])


def engine_logits(path: Path, **options: Any) -> np.ndarray:
    """The engine's logits after each of IDS, to the bit the same in passes of any length and in single steps."""
    with LLM(path, threads=2, context=512, **options) as llm:
        logits = llm.logits(IDS)
        for n in LENGTHS:
            assert np.array_equal(llm.logits(IDS[:n], last_only=True)[0], logits[n - 1])
        assert np.array_equal(decode(llm.model, IDS, max(LENGTHS)), logits[max(LENGTHS) :])
    return logits


def assert_exact(family: ModuleType, path: Path, most: float = 0.015) -> None:
    """Every log-probability of a file of floats, but for rows with a near tie in a router (at most 3 %).

    At the best ISA level of this CPU, and at another one by turns, by the name of the file.
    """
    levels = supported()
    logits, gaps = family.forward(path, IDS)
    clear = gaps >= 1e-3
    assert clear.mean() >= 0.97
    want = log_probabilities(logits)[clear]
    for isa in dict.fromkeys([levels[-1].name, levels[crc32(path.stem.encode()) % len(levels)].name]):
        found = log_probabilities(engine_logits(path, isa=isa))[clear]
        worst, kl = np.abs(want - found).max(), (np.exp(want) * (want - found)).sum(-1).mean()
        left = (~clear).sum()
        print(f"{path.stem} ({isa}): max |delta log-probability| {worst:.1e}, KL {kl:.1e}, {left} rows left out")
        assert worst <= most and kl <= 2e-5


def assert_as_near_as_llama_cpp(family: ModuleType, path: Path) -> None:
    """A quantised file, by the rows whose routers decide clearly: of others rounding may choose the experts."""
    logits, gaps = family.forward(path, IDS)
    clear = gaps >= 0.02
    assert clear.mean() > 0.7
    exact = log_probabilities(logits)[clear]

    def divergence(found: np.ndarray) -> float:
        return float((np.exp(exact) * (exact - log_probabilities(found)[clear])).sum(-1).mean())

    theirs = [divergence(llama_cpp_logits(path, IDS, flash)) for flash in (True, False)]
    ours = divergence(engine_logits(path))
    print(f"{path.stem}: KL {ours:.1e}, of llama.cpp {max(theirs):.1e}; {clear.mean():.0%} of the rows")
    assert ours <= 1.25 * max(theirs)
