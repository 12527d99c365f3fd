"""A model ready to run: from its tensors to logits for a batch of rows."""

import contextlib
import os
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seventy.cache.pages import Pages, check_kind, pages
from seventy.cache.prefix import PrefixCache
from seventy.cache.prefix import Sequence as CachedSequence
from seventy.cache.slots import Slots
from seventy.cache.states import EMPTY, States
from seventy.cache.store import DiskCache, PageStore
from seventy.engine import sampler
from seventy.engine.footprint import footprint
from seventy.engine.model_file import open_model
from seventy.engine.trials import Trials
from seventy.errors import SeventyError
from seventy.gguf.fingerprint import fingerprint
from seventy.gguf.source import Source
from seventy.graph.program import Program
from seventy.graph.weights import Matrix, Weights
from seventy.jit import isa
from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import matmul
from seventy.kernels.abi import NODES
from seventy.kernels.pages import PAGE
from seventy.language import t
from seventy.machine import cpu_time, topology
from seventy.machine.memory import interleave
from seventy.machine.topology import Topology
from seventy.runtime import reservations, runtime, tuning
from seventy.runtime.memory import (
    MAX_OUTPUTS,
    Footprint,
    cache_positions,
    choose_context,
    fitting_states,
    step_rows,
)
from seventy.runtime.reservations import Reservation
from seventy.runtime.threads import Aborted, Executor
from seventy.runtime.tuning import Candidates, Tuning
from seventy.sizes import size
from seventy.version import __version__

# At its end, what is still to be written to the disk may take so long.
_SAVING_SECONDS = 20.0
# Kernels beside those of the program.
SUPPORT = (Kernel("seventy.kernels.run:build"), *sampler.KERNELS)

# What is happening, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Segment:
    """Some tokens of one sequence in a step: plain numbers.

    They stand at positions `start`, `start` + 1 and so on; logits are wanted for the last `outputs` of them. `pages` is
    the sequence's block table, with room for every one of them; `states` are the one that its recurrent layers read,
    the one that they write, how many rows are pending in the first, and how many of these tokens are drafted. For an
    assistant, `read` is how many of the sequence's positions the model has read.
    """

    start: int
    tokens: Sequence[int]
    outputs: int
    pages: NDArray[np.int32]
    states: tuple[int, int, int, int] = (EMPTY, EMPTY, 0, 0)
    read: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """The result of a step. `logits`, [outputs, vocabulary], is a view that the next step overwrites.

    `bad` are the indices of segments with a NaN or an infinity: the weights are damaged, or the file is faulty. They
    must not be committed. `weight_bytes` and `cache_bytes` are what the step read (of recurrent states also what it
    wrote); `experts` is the mean number of different experts read per layer that has them.
    """

    logits: NDArray[np.float32]
    bad: frozenset[int]
    weight_bytes: int
    cache_bytes: int
    experts: float

    @property
    def bytes_read(self) -> int:
        return self.weight_bytes + self.cache_bytes


class _Inputs:
    """What a step writes for its program, and reads of it, between two tokens.

    Between two tokens the caches are full of weights, and Python is slow: memoryviews take a third of the time that
    numpy takes for a few numbers.
    """

    def __init__(self, program: Program, slots: Slots) -> None:
        assert program.logits is not None
        self._program, self._pages, self._slot_of_page = program, program.pages, slots.of_page
        self.logits = program.logits.floats(MAX_OUTPUTS)
        self._tokens, self._positions = program.tokens.data, program.positions.data
        self._segments, self._outputs = program.segments.data, program.outputs.data
        self._last_read = program.last_read.data
        self._tables, self._table_length = program.tables.reshape(-1).data, program.tables.shape[1]
        self._slots = program.slots.reshape(-1).data
        self._starts, self._states = program.starts.data, program.segment_states.reshape(-1).data
        self._state_bytes = program.states.kept_bytes
        self._bad_rows, self._bad_outputs = program.bad_rows.data, program.bad_outputs.data
        self._tables_of_files = program.weights.tables

    def write(self, batch: Sequence[Segment], guesses: bool = False) -> int:
        """Write a step's rows, or those of `guesses`; return how many bytes of the cache they read."""
        row = output = cache_bytes = 0
        self._program.bad_rows.fill(0)
        self._program.bad_outputs.fill(0)
        for i, each in enumerate(batch):
            n, n_pages, end = len(each.tokens), len(each.pages), each.start + len(each.tokens)
            assert end <= n_pages * PAGE, f"{end} positions in {n_pages} pages"
            self._tokens[row : row + n] = array("i", each.tokens)
            self._positions[row : row + n] = array("i", range(each.start, end))
            self._segments[row : row + n] = array("i", [i]) * n
            table = i * self._table_length
            self._tables[table : table + n_pages] = each.pages.data
            if self._pages.window:
                self._slots[table : table + n_pages] = self._slot_of_page[each.pages].data
            if guesses:
                self._last_read[row : row + n] = array("i", [each.read - 1]) * n
            elif self._state_bytes:
                assert each.states[1] != EMPTY, "no state to be written"
                self._starts[i], self._starts[i + 1] = row, row + n
                self._states[4 * i : 4 * i + 4] = array("i", each.states)
                cache_bytes += 2 * self._state_bytes
            row, cache_bytes = row + n, cache_bytes + self._pages.seen_bytes(each.start, end)
            self._outputs[output : output + each.outputs] = array("i", range(row - each.outputs, row))
            output += each.outputs
        for table in () if guesses else self._tables_of_files:
            table.read(self._tokens[:row].tolist())
        self._program.count(row, output, len(batch))
        return cache_bytes

    def bad(self, n_rows: int, n_outputs: int) -> frozenset[int]:
        """Return the segments of the last step that have a NaN or an infinity in their rows or logits."""
        if not (any(self._bad_rows[:n_rows]) or any(self._bad_outputs[:n_outputs])):
            return frozenset()
        rows = [row for row in range(n_rows) if self._bad_rows[row]]
        outputs = [self._outputs[output] for output in range(n_outputs) if self._bad_outputs[output]]
        return frozenset(self._segments[row] for row in rows + outputs)


@dataclass(frozen=True, slots=True)
class _Room:
    """What a model was given: its longest sequence, positions of all, states, rows of a step, and memory for them."""

    context: int
    positions: int
    states: int
    rows: int
    reservation: Reservation


def _reserve(
    sizes: Footprint, path: Path | str, context: int | None, sequences: int, positions: int | None, memory: int | None
) -> _Room:
    """Take what fits, or raise SeventyError before anything is loaded: the machine would swap."""
    with reservations.ledger() as ledger:
        room = ledger.room if memory is None else min(ledger.room, memory)
        context = choose_context(sizes, room, context, sequences)
        positions = positions or cache_positions(sizes, room, context, sequences)
        states = fitting_states(sizes, room, sequences)
        rows = step_rows(sizes, room, positions, sequences, states)
        need = sizes.need(positions, sequences, rows=rows, states=states)
        what = t("{path} with a context of {context} ({cache})", path=path, context=context, cache=size(need.cache))
        return _Room(context, positions, states, rows, ledger.promise(need.total, what))


def _check(threads: int | None, context: int | None) -> None:
    if threads is not None and not 1 <= threads <= 1024:
        raise SeventyError("threads must be from 1 to 1024, not {threads}", threads=threads)
    if context is not None and context < 1:
        raise SeventyError("context must be at least 1 token, not {context}", context=context)


class Model:
    """Weights, cache, compiled program and threads.

    `source` is a GGUF file's path, or tensors from elsewhere. `context` is the longest sequence, at most what the
    model was made for; without it, what memory allows (runtime/memory.py). `sequences` share the cache: it has room for
    one of that length at least, and for all where memory allows, or for `positions` of all together where that is
    given. Of all memory that is free, or of `memory` bytes: so much is taken at most, where the least needs no more.
    `kv` is how keys and values are kept, as f16 or q8_0. Without `threads`, how many, which vector width and tiles are
    what measurements chose (runtime/tuning.py): remembered ones, or now where loading took longer than they do and no
    other model is loaded, or `tune` asks for them; else every physical core and the widest. A step has `max_rows` rows
    at most. With `mtp`, the file's block of multi-token prediction is loaded, too, where it has one; with `assistant`,
    a small model in that file, which drafts for this one (`predicts` says whether either is there). With a `disk`, what
    the cache has no room for is kept there (cache/store.py).
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Source,
        threads: int | None = None,
        context: int | None = None,
        sequences: int = 1,
        isa_name: str | None = None,
        kv: str = "f16",
        progress: Progress | None = None,
        tune: bool = False,
        positions: int | None = None,
        memory: int | None = None,
        disk: DiskCache | None = None,
        mtp: bool = False,
        assistant: str | os.PathLike[str] | None = None,
    ) -> None:
        _check(threads, context)
        levels, machine = isa.choices(isa_name), topology.read()
        candidates = Candidates.of(machine, levels)
        self.threads = threads or candidates.prefill[0]
        self.tuning: Tuning | None = None
        self.tuning_seconds = self.disturbing_cpus = 0.0
        self._executor: Executor | None = None
        cpus = machine.cpus_for(max(self.threads, candidates.most_threads))
        with contextlib.ExitStack() as files:
            tensors, architecture, self.config = open_model(files, source, mtp, assistant)
            self.metadata: Any = tensors.metadata
            specs = architecture.caches(self.config)
            identity = fingerprint(tensors) if disk else b""
            check_kind(specs, kv)
            sizes = footprint(tensors, self.config, specs, kv)
            room = _reserve(sizes, tensors.path, context, sequences, positions, memory)
            self.context, self.max_rows, self._reservation = room.context, room.rows, room.reservation
            states = States(specs, room.states)
            n_slots = sizes.slots(room.positions, sequences)
            self.cache = PrefixCache(Pages(specs, pages(room.positions), kv, n_slots), states)
            weights = self._build(architecture, tensors, states, machine, cpus)
            shapes = [(matrix.rows, matrix.columns, matrix.format.name) for matrix in weights.matrices]
            remembered = tuning.place(machine, candidates, shapes)
            if threads is None and not tune:
                self.tuning = tuning.load(remembered, candidates)
            self.library = runtime.shared.library(isa.select(self.tuning.isa) if self.tuning else levels[0])
            long = self._prepare(weights, progress) > tuning.LEAST_LOADING_SECONDS and not runtime.shared.lent
        if threads is None and self.tuning is None and (tune or long):
            self.tuning = self._tune(candidates, machine, progress, remembered)
        self._start(cpus)
        if disk:
            # What a page holds depends on these; what architectures do, on the version.
            key = (identity, specs, kv, self.library.fingerprint, __version__)
            self.cache.attach(PageStore(disk, repr(key).encode()))

    def _build(
        self, architecture: ModuleType, tensors: Source, states: States, machine: Topology, cpus: Sequence[int]
    ) -> Weights:
        """Makes the program, and the weights that it will load, for threads on these CPUs."""
        nodes = machine.node_cpus()
        # One node, or more than have counters: no thread is kept from anything.
        weights = Weights(tensors, nodes if 1 < len(nodes) <= NODES else ((),), self.config.runs)
        thread_nodes = [next(i for i, on_node in enumerate(nodes) if cpu in on_node) for cpu in cpus]
        self.program = Program(
            weights, self.cache.memory, states, self.context, self.max_rows, MAX_OUTPUTS, self.config.epsilon,
            self.threads, thread_nodes,
        )  # fmt: skip
        architecture.build(self.program, self.config, weights)
        self.program.finish()
        weights.refuse_unused()
        if len(nodes) > 1:
            for area in (self.cache.memory.memory, states.memory, *self.program.memory):
                interleave(area, sorted({core.node for core in machine.usable}))
        self.weight_bytes = weights.nbytes
        return weights

    @property
    def isa(self) -> Isa:
        return self.library.isa

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that this process promised itself for the model."""
        return self._reservation.nbytes

    def _prepare(self, weights: Weights, progress: Progress | None) -> float:
        """Compiles and loads, both at once: compiling needs cores, loading needs the disk. The seconds of loading."""
        kernels = [*self.program.kernels(), *SUPPORT]
        failures: list[BaseException] = []

        def compile_all() -> None:
            try:
                self.library.load(kernels, self.threads, progress and partial(progress, t("compiling kernels")))
            except BaseException as error:
                failures.append(error)

        self.library.load(weights.kernels())
        thread = threading.Thread(target=compile_all)
        thread.start()
        start = time.perf_counter()
        try:
            weights.load(self.library, self.threads, progress and partial(progress, t("loading weights")))
            seconds = time.perf_counter() - start
        finally:
            thread.join()
        if failures:
            raise failures[0]
        return seconds

    def _tune(
        self, candidates: Candidates, machine: Topology, progress: Progress | None, remembered: Path
    ) -> Tuning | None:
        """Measures the candidates on this program, takes the library of the chosen width, and remembers what it chose.

        None where other programs used much of the CPUs meanwhile (`disturbing_cpus`): threads that wait for each other
        suffer most from that, and a choice made then would last.
        """
        if progress:
            progress(t("trying threads, vector width and tiles"), 0, 1)
        places, cache_bytes = machine.cpus_for(candidates.most_threads), machine.last_level_cache_bytes
        start, before = time.perf_counter(), cpu_time.cpu_seconds(places)
        with Trials(
            self.program, self.new_sequence(), self.config.vocabulary, self.library, SUPPORT, places, cache_bytes
        ) as trials:
            chosen = tuning.tune(candidates, trials.seconds)
        self.tuning_seconds = time.perf_counter() - start
        used = (cpu_time.cpu_seconds(places) - before) / self.tuning_seconds
        if progress:
            progress(t("trying threads, vector width and tiles"), 1, 1)
        if used > tuning.MOST_DISTURBING_CPUS:
            self.disturbing_cpus = used
            return None
        self.library = trials.libraries[chosen.isa]
        tuning.save(remembered, chosen)
        return chosen

    def _start(self, cpus: Sequence[int]) -> None:
        """Link the program with the chosen library, and start the threads on these CPUs."""
        usual = matmul.prompt_columns(self.library.isa.lanes)[0]
        self.program.tile_prompts(self.tuning.prompt_columns if self.tuning else usual)
        self._linked, self._inputs = self.program.link(self.library), _Inputs(self.program, self.cache.slots)
        self._linked_block = self.program.link_rest(self.library)
        self._step = threading.Lock()
        n_cpus = max(self.threads, self.tuning.most_threads if self.tuning else 0)
        self._executor = runtime.shared.executor(self.library, cpus[:n_cpus])

    def new_sequence(self) -> CachedSequence:
        return CachedSequence(self.cache, self.context)

    def step(self, batch: Sequence[Segment], before: Callable[[], bool] | None = None) -> Step:
        """Run the model over every segment of the batch.

        At most `max_rows` rows and MAX_OUTPUTS outputs. Writes the segments' keys and values into their pages and
        commits nothing: the caller knows what is right. The calling thread is one of those that compute; it should
        `lead`.
        `before` is called when nothing is left to do in Python: whom it wakes finds the interpreter free. Raises
        Aborted where it says that the step is not wanted any more, and after `abort`.
        """
        assert self._executor is not None, "the model is closed"
        program = self.program
        n_rows, n_outputs = self._counts(batch)
        with self._step:
            cache_bytes = self._inputs.write(batch)
            self._executor.run(self._linked, self.threads_for(n_rows), before)
            bad = self._inputs.bad(n_rows, n_outputs)
            logits, experts = self._inputs.logits[:n_outputs], program.step_experts()
            return Step(logits, bad, program.step_bytes(), cache_bytes, experts)

    def _counts(self, batch: Sequence[Segment]) -> tuple[int, int]:
        """Rows and outputs of a batch."""
        n_rows, n_outputs = sum(len(each.tokens) for each in batch), sum(each.outputs for each in batch)
        assert 0 < n_rows <= self.max_rows and n_outputs <= MAX_OUTPUTS, f"{n_rows} rows, {n_outputs} outputs"
        return n_rows, n_outputs

    @property
    def predicts(self) -> bool:
        """Whether the model's block of multi-token prediction, or an assistant, is loaded."""
        return self.config.predicts or self.config.assistant is not None

    def predict(self, batch: Sequence[Segment]) -> Step:
        """Run the block of multi-token prediction, or the assistant: as `step`, for tokens that the model may not have
        read.

        What the model made of the token before each must be in its page: by a step that read it, or by a pass of the
        block that wanted its logits. Segments need no states; of an assistant they have one token each, and want its
        logits.
        """
        assert self._executor is not None and self._linked_block is not None, "nothing that predicts is loaded"
        n_rows, n_outputs = self._counts(batch)
        with self._step:
            self._inputs.write(batch, guesses=True)
            self._executor.run(self._linked_block, self.threads_for(n_rows))
            bad = self._inputs.bad(n_rows, n_outputs)
            return Step(self._inputs.logits[:n_outputs], bad, self.program.bytes_of_one_guess(), 0, 0.0)

    def threads_for(self, rows: int) -> int:
        """Return the number of threads for a step of `rows`: the tuned one if such steps were measured, else all."""
        if self.tuning and rows == 1:
            return self.tuning.decode_threads
        if self.tuning and rows >= tuning.PREFILL_ROWS // 2:
            return self.tuning.prefill_threads
        return self.threads

    def states(self, first: int, last: int) -> NDArray[np.float32]:
        """Return the normalised hidden states of rows `first` to `last` of the last step: float32 [rows, hidden]."""
        config = self.config
        assert self.program.hidden is not None
        rows = self.program.hidden.floats(last)[first:].astype(np.float32)
        scale = np.sqrt(np.mean(rows * rows, axis=1, keepdims=True) + config.epsilon)
        weight = self.program.weights.vector(f"{config.final_norm}.weight", config.hidden)[: config.hidden]
        return np.asarray(rows / scale * weight, np.float32)

    def lead(self) -> AbstractContextManager[None]:
        """Keep the calling thread on the first of the model's CPUs while it runs steps (runtime/threads.py)."""
        assert self._executor is not None, "the model is closed"
        return self._executor.lead()

    def abort(self) -> None:
        """Make a running step raise Aborted. May be called by any thread."""
        if self._executor:
            self._executor.abort()

    def read_bytes(self, positions: int) -> int:
        """Return the bytes read to decode one token: the matrices it uses, and the cache of this many positions.

        For recurrent states, writes count too. Without positions, only the matrices count.
        """
        cache = self.cache.memory.seen_bytes(positions - 1, positions) + 2 * self.cache.states.kept_bytes
        return self.program.bytes_of_one_row() + (cache if positions else 0)

    def operations(self, rows: int, outputs: int) -> int:
        """Count the matrix operations of a step, two per multiply-add; the head runs for `outputs` rows only."""
        head = self.config.vocabulary * self.config.hidden
        used = self.program.slots_per_row
        blocks = sum(
            matrix.rows * matrix.columns * (used if matrix.routed else matrix.experts)
            for matrix in self.matrices if matrix.name.startswith("blk.")
        )  # fmt: skip
        return 2 * (rows * blocks + outputs * head)

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        return self.program.weights.matrices

    def close(self) -> None:
        """Stop the threads and free the memory. May be called twice."""
        if self._executor:
            self._executor.close()
            self._executor = None
            self.cache.close(_SAVING_SECONDS)
            self._reservation.release()
            self.program.weights.close()
            del self.program, self.cache, self.library, self._linked, self._linked_block, self._inputs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


__all__ = ["MAX_OUTPUTS", "Aborted", "Model", "Progress", "Segment", "Step"]
