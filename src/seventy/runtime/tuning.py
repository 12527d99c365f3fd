"""How many threads, which vector width and which tiles run a model fastest here: measured once, then remembered.

The default is every physical core, the CPU's widest vectors and the tiles that were best on our machine. Something
else is taken only where it was clearly faster in alternated runs, so that tuning can lose nothing but the seconds it
takes. No model is known here: whoever tunes brings a function that runs a step.
"""

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import platformdirs

from seventy.jit.compiler import sources_digest
from seventy.jit.isa import LEVELS, Isa
from seventy.kernels import matmul
from seventy.language import listed, t, tn
from seventy.machine import topology
from seventy.machine.records import from_json, keep
from seventy.machine.topology import Topology

VERSION = 2
PREFILL_ROWS = 64
# Tiles pay by the rows that share them: they are tried on a whole pass.
TILE_ROWS = 256
SECONDS = 2.0
# A model that loads faster than this is not held up by measurements (and by compiling for another width).
LEAST_LOADING_SECONDS = 4.0
# What others may use of the CPUs (1 is one of them) while it is measured.
MOST_DISTURBING_CPUS = 0.2
_CLEARLY = 1.03
_ROUNDS = 7, 25


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """A way to run a step; `prompt_columns` are what a prompt's tiles go over at a time (kernels/matmul.py)."""

    isa: str
    threads: int
    prompt_columns: int

    def __post_init__(self) -> None:
        if self.isa not in LEVELS:
            raise ValueError(t("there is no ISA level {isa!r}", isa=self.isa))

    @classmethod
    def usual(cls, isa: str, threads: int) -> Self:
        return cls(isa, threads, columns(isa)[0])


def columns(isa: str) -> tuple[int, ...]:
    """Return the candidates for `prompt_columns` at an ISA level, the default first."""
    return matmul.prompt_columns(LEVELS[isa].lanes)


# The seconds that a step of so many rows takes.
Measure = Callable[[ExecutionConfig, int], float]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The settings to choose from, the default first: ISA levels, threads for prompts, and threads for single rows."""

    isas: tuple[str, ...]
    prefill: tuple[int, ...]
    decode: tuple[int, ...]

    @classmethod
    def of(cls, machine: Topology, levels: Sequence[Isa]) -> Self:
        """List candidates: fewer threads where memory may be saturated by less, more where cores have hyper-threads."""
        cores = len(machine.usable)
        fast = sum(core.kind != "efficiency" for core in machine.usable)
        whole = sum(len(core.cpus) for core in machine.usable)
        if machine.quota is not None and whole > machine.quota:
            whole = cores
        prefill = dict.fromkeys(n for n in (cores, fast, whole) if n)
        decode = dict.fromkeys([*prefill, *(math.ceil(cores * share) for share in (0.75, 0.5, 0.25))])
        return cls(tuple(level.name for level in levels), tuple(prefill), tuple(decode))

    @property
    def most_threads(self) -> int:
        return max(*self.prefill, *self.decode)


@dataclass(frozen=True, slots=True)
class Trial:
    """A way that was tried on steps of `rows` rows.

    `speed` is relative to the default's in the same round, the median of all rounds; in four fifths of them it was at
    least `surely`.
    """

    rows: int
    way: ExecutionConfig
    milliseconds: float
    speed: float
    surely: float

    def __post_init__(self) -> None:
        for number in (self.milliseconds, self.speed, self.surely):
            if not (number > 0 and math.isfinite(number)):
                raise ValueError(t("{number} is no time or speed", number=number))

    @property
    def clear(self) -> bool:
        return self.surely > _CLEARLY


@dataclass(frozen=True, slots=True)
class Tuning:
    """The chosen settings, and the measurements behind them."""

    version: int
    date: str
    isa: str
    prefill_threads: int
    decode_threads: int
    prompt_columns: int
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(t("tuning version {version}, not {version_2}", version=self.version, version_2=VERSION))

    def within(self, candidates: Candidates) -> bool:
        return (
            self.isa in candidates.isas
            and self.prefill_threads in candidates.prefill
            and self.decode_threads in candidates.decode
            and self.prompt_columns in columns(self.isa)
        )

    @property
    def most_threads(self) -> int:
        return max(self.prefill_threads, self.decode_threads)

    def lines(self) -> list[str]:
        """Describe in lines of text what was chosen, then what was measured."""
        found = [
            t(
                "measured here on {date}: {prefill_threads} threads for prompts, {decode_threads} for answers, "
                "vectors of {bits} bits, prompts in tiles of {columns} columns",
                date=self.date, prefill_threads=self.prefill_threads, decode_threads=self.decode_threads,
                bits=_bits(self.isa), columns=self.prompt_columns or t("all"),
            )
        ]
        for rows in (TILE_ROWS, PREFILL_ROWS, 1):
            tried: dict[ExecutionConfig, Trial] = {}
            for trial in self.trials:
                # Of what was tried again the last counts, unless it was what others were compared with.
                if trial.rows == rows and (trial.way not in tried or trial.speed != 1):
                    tried[trial.way] = trial
            if tried:
                what = t("one row") if rows == 1 else t("{rows} rows", rows=rows)
                found.append(t("  {what}: {tried}", what=what, tried=listed(map(_words, tried.values()))))
        return found


def _bits(isa: str) -> int:
    return 32 * LEVELS[isa].lanes


def _words(trial: Trial) -> str:
    way = trial.way
    threads = tn("{n} thread", "{n} threads", n=way.threads)
    tiles = t(
        ", tiles of {columns} columns,",
        columns=way.prompt_columns or t("all"),
    ) if trial.rows == TILE_ROWS else ""
    return t(
        "{threads} of {bits} bits{tiles} {milliseconds:.1f} ms ({speed:.2f}x)",
        threads=threads, bits=_bits(way.isa), tiles=tiles, milliseconds=trial.milliseconds, speed=trial.speed,
    )


def tune(
    candidates: Candidates, measure: Measure, seconds: float = SECONDS, clock: Callable[[], float] = time.perf_counter
) -> Tuning:
    """Try the candidates in turn for about `seconds`: threads per kind of step, vector width, then tiles."""
    isa = candidates.isas[0]
    trials: list[Trial] = []

    def contest(ways: list[ExecutionConfig], rows: int) -> list[Trial]:
        found = _contest(ways, rows, measure, seconds / 10, clock)
        trials.extend(found)
        return found

    def fastest(ways: list[ExecutionConfig], rows: int) -> ExecutionConfig:
        """The best that beat the first clearly, and again when it met it alone: once may be chance."""
        results = contest(ways, rows) if len(ways) > 1 else []
        clear = [(trial.speed, i) for i, trial in enumerate(results) if trial.clear]
        best = ways[max(clear)[1]] if clear else ways[0]
        return best if clear and contest([ways[0], best], rows)[1].clear else ways[0]

    def wins(other: str) -> bool:
        """Whether this width helps prompts or answers and hurts neither."""
        steps = (prefill, PREFILL_ROWS), (decode, 1)
        both = [
            contest([ExecutionConfig.usual(level, threads) for level in (isa, other)], rows)[1]
            for threads, rows in steps
        ]
        return any(trial.clear for trial in both) and all(trial.speed > 0.99 for trial in both)

    prefill = fastest([ExecutionConfig.usual(isa, n) for n in candidates.prefill], PREFILL_ROWS).threads
    decode = fastest([ExecutionConfig.usual(isa, n) for n in candidates.decode], 1).threads
    for other in candidates.isas[1:]:
        if wins(other) and wins(other):
            isa = other
    tiles = fastest([ExecutionConfig(isa, prefill, n) for n in columns(isa)], TILE_ROWS).prompt_columns
    return Tuning(VERSION, datetime.now(UTC).date().isoformat(), isa, prefill, decode, tiles, tuple(trials))


def _contest(
    ways: list[ExecutionConfig], rows: int, measure: Measure, seconds: float, clock: Callable[[], float]
) -> list[Trial]:
    """Every way once a round; the order turns round, for what runs after another may find a warmer machine."""
    for way in ways:
        measure(way, rows)
    least, most = _ROUNDS
    rounds: list[dict[ExecutionConfig, float]] = []
    end = clock() + seconds
    while len(rounds) < least or (clock() < end and len(rounds) < most):
        order = ways[:: -1 if len(rounds) % 2 else 1]
        rounds.append({way: measure(way, rows) for way in order})
    found = []
    for way in ways:
        speeds = sorted(taken[ways[0]] / taken[way] for taken in rounds)
        median = 1000 * statistics.median(taken[way] for taken in rounds)
        surely = speeds[len(speeds) // 5]
        found.append(Trial(rows, way, median, statistics.median(speeds), surely))
    return found


def place(machine: Topology, candidates: Candidates, shapes: Sequence[tuple[int, int, str]]) -> Path:
    """Return the file for tunings of models with matrices of these shapes (rows, columns, format).

    It depends on the machine as this process may use it, and on the kernels.
    """
    where = machine.cores, [node.number for node in machine.nodes], machine.caches, machine.allowed, machine.quota
    parts = VERSION, topology.cpu_name(), where, candidates, sources_digest(), shapes
    return folder() / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.json"


def folder() -> Path:
    return Path(platformdirs.user_cache_dir("seventy")) / "tuning"


def load(path: Path, candidates: Candidates) -> Tuning | None:
    """Load a stored tuning; None if there is none or it cannot be used."""
    try:
        tuning = from_json(Tuning, json.loads(path.read_text(encoding="utf-8")), t("the tuning"))
    except (OSError, ValueError, RecursionError):
        return None
    return tuning if tuning.within(candidates) else None


def save(path: Path, tuning: Tuning) -> None:
    keep(path, json.dumps(asdict(tuning), indent=1) + "\n")
