"""What is measured, and the figures that come of it: alternated, repeated, medians with their spread."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from seventy.bench.engine import Engine, PeerLost, Timing
from seventy.language import t

# Threads of both sides go to sleep a few milliseconds after their last work.
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Task:
    """`prefill` of n tokens, `decode` of n tokens at a depth, or `batch`: passes over n sequences at a depth."""

    what: str
    n: int
    depth: int = 0
    passes: int = 1

    @property
    def label(self) -> str:
        if self.what == "decode":
            return t("decode at {depth}", depth=self.depth)
        return t("prefill {n}", n=self.n) if self.what == "prefill" else t("{n} users", n=self.n)

    @property
    def tokens(self) -> int:
        return self.n * self.passes

    @property
    def length(self) -> int:
        """Positions of the longest sequence."""
        return self.depth + (self.passes if self.what == "batch" else self.n)

    def run(self, engine: Engine) -> Timing:
        if self.what == "decode":
            return engine.decode(self.n, self.depth)
        return engine.prefill(self.n) if self.what == "prefill" else engine.batch(self.n, self.depth, self.passes)


@dataclass(frozen=True, slots=True)
class Figure:
    """The repeats of one task on one engine: tokens per second, and joules per token where they were counted.

    `limits` are what memory gave just before each, GB/s (1e9); `weight_bytes` what each run read of the weights,
    `experts` how many different ones its steps read in a layer of them, on average.
    """

    task: Task
    engine: str
    samples: tuple[float, ...]
    joules: tuple[float, ...] = ()
    limits: tuple[float, ...] = ()
    weight_bytes: tuple[int, ...] = ()
    experts: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        return spread(self.samples)


def spread(samples: Sequence[float]) -> float:
    """Return half the interquartile range, as a share of the median."""
    if len(samples) < 2:
        return 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(samples)


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio of our speed to a peer's, from pairs that ran one after the other."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Figure, theirs: Figure) -> "Ratio":
        pairs = sorted(a / b for a, b in zip(ours.samples, theirs.samples, strict=True))
        quartiles = statistics.quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else pairs * 3
        return cls(statistics.median(pairs), quartiles[0], quartiles[2])


def measure(
    engines: Sequence[Engine],
    tasks: Sequence[Task],
    repeats: int,
    progress: Callable[[str, int, int], None] | None = None,
    lost: Callable[[PeerLost], None] | None = None,
) -> Iterator[dict[str, Figure]]:
    """Measure each task on each engine that supports it, in turns after one warm-up; return the figures per task.

    A peer that dies is left out from then on, and `lost` is called.
    """
    total, done = len(tasks) * (repeats + 1), 0
    alive = list(engines)
    for task in tasks:
        timings: dict[str, list[Timing]] = {engine.name: [] for engine in alive if task.what in engine.does}
        for repeat in range(repeats + 1):
            for engine in [engine for engine in alive if task.what in engine.does]:
                time.sleep(_PAUSE_SECONDS)
                try:
                    timing = task.run(engine)
                except PeerLost as error:
                    alive.remove(engine)
                    del timings[engine.name]
                    if lost:
                        lost(error)
                    continue
                if repeat:
                    timings[engine.name].append(timing)
            done += 1
            if progress:
                progress(task.label, done, total)
        yield {name: _figure(task, name, found) for name, found in timings.items()}


def _figure(task: Task, name: str, timings: Sequence[Timing]) -> Figure:
    joules = tuple(timing.joules / task.tokens for timing in timings if timing.joules is not None)
    limits = tuple(timing.limit_gbs for timing in timings if timing.limit_gbs is not None)
    weights = tuple(timing.weight_bytes for timing in timings if timing.weight_bytes is not None)
    experts = tuple(timing.experts for timing in timings if timing.experts is not None)
    samples = tuple(task.tokens / timing.seconds for timing in timings)
    return Figure(task, name, samples, joules, limits, weights, experts)
