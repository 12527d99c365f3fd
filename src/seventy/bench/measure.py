"""What is measured, and the figures that come of it: alternated, repeated, medians with their spread."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from seventy.bench.engine import Engine

# Threads of both sides go to sleep a few milliseconds after their last work.
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Task:
    """`prefill` of n tokens, `decode` of n tokens at a depth, or one `batch` of n rows."""

    what: str
    n: int
    depth: int = 0

    @property
    def label(self) -> str:
        if self.what == "decode":
            return f"decode at {self.depth}"
        return f"prefill {self.n}" if self.what == "prefill" else f"{self.n} rows at once"

    def run(self, engine: Engine) -> float:
        """Tokens per second."""
        if self.what == "decode":
            return self.n / engine.decode(self.n, self.depth)
        return self.n / (engine.prefill(self.n) if self.what == "prefill" else engine.batch(self.n))


@dataclass(frozen=True, slots=True)
class Figure:
    """The repeats of one task on one engine, tokens per second."""

    task: Task
    engine: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, as a share of the median."""
        if len(self.samples) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4)
        return (high - low) / 2 / self.median


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours to theirs, from pairs that ran one after the other."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Figure, theirs: Figure) -> "Ratio":
        pairs = sorted(a / b for a, b in zip(ours.samples, theirs.samples, strict=True))
        quartiles = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
        return cls(statistics.median(pairs), quartiles[0], quartiles[2])


def measure(
    engines: Sequence[Engine],
    tasks: Sequence[Task],
    repeats: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[list[Figure]]:
    """For each task the figure of each engine, after one warm-up each; the engines take turns."""
    total, done = len(tasks) * (repeats + 1), 0
    for task in tasks:
        samples: list[list[float]] = [[] for _ in engines]
        for repeat in range(repeats + 1):
            for engine, found in zip(engines, samples, strict=True):
                time.sleep(_PAUSE_SECONDS)
                speed = task.run(engine)
                if repeat:
                    found.append(speed)
            done += 1
            if progress:
                progress(task.label, done, total)
        yield [Figure(task, engine.name, tuple(found)) for engine, found in zip(engines, samples, strict=True)]
