"""What is timed: the engine's own passes, without a tokenizer or a sampler around them."""

import signal
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from seventy.cache.prefix import Sequence
from seventy.engine.model import Model, Segment
from seventy.errors import SeventyError
from seventy.language import t
from seventy.machine import topology
from seventy.measure import rates
from seventy.measure.rates import Area

# Less says more of caches than of memory, as does less than a few times the last level; more takes too long.
_LEAST_PROBE_BYTES, _PROBE_CACHES, _PROBE_BYTES = 64 << 20, 4, 512 << 20
# Weights of so many last-level caches are read as `seventy measure` reads memory.
WHOLE_PROBE_CACHES = 16


class Counter(Protocol):
    """Counts energy while it is open."""

    @property
    def joules(self) -> float: ...


Meter = Callable[[], AbstractContextManager[Counter]]


@dataclass(frozen=True, slots=True)
class Timing:
    """The measurements of one task; `joules` is None if energy was not measured.

    `limit_gbs` is the bandwidth of a pure read of the weights just before, with as many threads; None if not measured.
    `weight_bytes` are the bytes of weights read, `experts` the mean number of different experts that a step read per
    layer; None if the engine does not report it.
    """

    seconds: float
    joules: float | None = None
    limit_gbs: float | None = None
    weight_bytes: int | None = None
    experts: float | None = None


@dataclass(frozen=True, slots=True)
class Threads:
    """The numbers of threads that an engine uses for prompts and for decoding."""

    prefill: int
    decode: int


class PeerLost(SeventyError):
    """Another engine ended in the midst of its work; what was measured of ours stands."""


def death(returncode: int) -> str:
    """Describe why a process ended, by its exit code (negative for a signal), with a hint for common causes."""
    if returncode >= 0:
        return t("it ended with exit code {returncode}", returncode=returncode)
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        return t("signal {returncode} ended it", returncode=-returncode)
    hints = {
        "SIGILL": t(
            "an instruction that this machine does not let programs use, as AMX under some hypervisors; build it "
            "for those it has: CMAKE_ARGS='-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON "
            "-DGGML_BMI2=ON' pip install --force-reinstall --no-cache-dir llama-cpp-python (and -DGGML_AVX512=ON "
            "and so on, where `seventy measure` shows them)"
        ),
        "SIGKILL": t("somebody ended it, most likely the system for want of memory; take a smaller model or context"),
        "SIGSEGV": t("a fault of its own; get a newer one"),
        "SIGABRT": t("it gave up by itself; run it alone to see why"),
        "SIGBUS": t("a file it had mapped was cut short"),
    }
    return t("{name}: {hint}", name=name, hint=hints.get(name) or t("a signal ended it"))


class Engine(Protocol):
    """One engine of a comparison. Every call begins with an empty cache; preparations are not timed.

    `does` lists the kinds of task it supports.
    """

    name: str
    does: frozenset[str]

    def prefill(self, tokens: int) -> Timing:
        """Time reading a prompt of `tokens` random tokens, with the logits of the last."""
        ...

    def decode(self, tokens: int, depth: int) -> Timing:
        """Time decoding `tokens` random tokens, one a step, after a context of `depth` tokens."""
        ...

    def batch(self, rows: int, depth: int, passes: int) -> Timing:
        """Time `passes` steps of `rows` sequences at this depth, one random token each, with all their logits."""
        ...

    def close(self) -> None: ...


class Seventy:
    """Our engine, in this process; without its `head`, no pass gives logits.

    Before each task memory is read and nothing else done: neighbours on a shared machine come and go, and a share of
    what it gave an hour ago says little.
    """

    does = frozenset({"prefill", "decode", "batch"})

    def __init__(self, model: Model, meter: Meter | None = None, head: bool = True) -> None:
        self.model = model
        self.name = "seventy" if head else "seventy without its head"
        self._meter, self._outputs = meter, int(head)
        self._random = np.random.default_rng(0)
        self._weight_bytes = 0
        self._experts: list[float] = []
        # The first write to a state waits for the system, once in a process's life; a few passes would be half that.
        model.cache.states.touch()

    def _tokens(self, n: int) -> list[int]:
        tokens: list[int] = self._random.integers(0, self.model.config.vocabulary, n).tolist()
        return tokens

    def _read(self, sequence: Sequence, tokens: list[int], outputs: int) -> None:
        most = self.model.max_rows
        for first in range(0, len(tokens), most):
            self._step([sequence], [tokens[first : first + most]], outputs if first + most >= len(tokens) else 0)

    def _step(self, sequences: list[Sequence], tokens: list[list[int]], outputs: int) -> None:
        """Run some tokens of each sequence in one step, with logits of the last `outputs` of each."""
        batch = []
        for sequence, some in zip(sequences, tokens, strict=True):
            sequence.reserve(sequence.length + len(some))
            batch.append(Segment(sequence.length, some, outputs, sequence.pages, sequence.states))
        step = self.model.step(batch)
        self._weight_bytes += step.weight_bytes
        self._experts.append(step.experts)
        for sequence, some in zip(sequences, tokens, strict=True):
            sequence.commit(some)

    def _limit_gbs(self, rows: int) -> float | None:
        """GB/s (1e9) at which a step's threads read the weights; None if those are small or on several nodes."""
        machine, weights = topology.read(), self.model.program.weights
        least = max(_LEAST_PROBE_BYTES, _PROBE_CACHES * machine.last_level_cache_bytes)
        if len(weights.nodes) > 1 or len(weights.memory) < least:
            return None
        memory = weights.memory[: max(WHOLE_PROBE_CACHES * machine.last_level_cache_bytes, _PROBE_BYTES)]
        return rates.read_now(self.model.library, Area(memory, machine.cpus_for(self.model.threads_for(rows))))

    def _time(self, work: Callable[[], None], limit_gbs: float | None) -> Timing:
        with self.model.lead(), self._meter() if self._meter else nullcontext() as counter:
            self._weight_bytes = 0
            self._experts.clear()
            start = time.perf_counter()
            work()
            seconds = time.perf_counter() - start
        joules, experts = counter.joules if counter else None, statistics.fmean(self._experts)
        return Timing(seconds, joules, limit_gbs, self._weight_bytes, experts)

    def prefill(self, tokens: int) -> Timing:
        sequence, prompt = self.model.new_sequence(), self._tokens(tokens)
        limit_gbs = self._limit_gbs(tokens)
        try:
            return self._time(lambda: self._read(sequence, prompt, self._outputs), limit_gbs)
        finally:
            sequence.close()

    def decode(self, tokens: int, depth: int) -> Timing:
        return self._passes(1, depth, tokens)

    def batch(self, rows: int, depth: int, passes: int) -> Timing:
        return self._passes(rows, depth, passes)

    def _passes(self, rows: int, depth: int, passes: int) -> Timing:
        sequences = [self.model.new_sequence() for _ in range(rows)]
        steps = [self._tokens(rows) for _ in range(passes)]

        def work() -> None:
            for tokens in steps:
                self._step(sequences, [[token] for token in tokens], self._outputs)

        try:
            for sequence in sequences:
                self._read(sequence, self._tokens(depth), 0)
            return self._time(work, self._limit_gbs(rows))
        finally:
            for sequence in sequences:
                sequence.close()

    def close(self) -> None:
        self.model.close()
