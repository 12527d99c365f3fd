"""A program's first operations run in one way or another, and timed: what runtime/tuning.py chooses by."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from seventy.cache.prefix import Sequence as CachedSequence
from seventy.graph.program import Program
from seventy.jit.compiler import Kernel, Library
from seventy.jit.isa import select
from seventy.runtime import runtime
from seventy.runtime.tuning import ExecutionConfig

# One row reads more than any cache holds; so many of a prompt's rows read what takes a slow CPU some tenths of a
# second, and more rows less.
_DECODE_BYTES, _PREFILL_BYTES, _PREFILL_ROWS = 256 << 20, 64 << 20, 64


class Trials:
    """Steps of a loaded program at any ISA level and with up to as many threads as there are `cpus`.

    `sequence` lends its pages; what they held is lost. `support` are kernels that a library needs beside the
    program's.
    """

    def __init__(
        self,
        program: Program,
        sequence: CachedSequence,
        vocabulary: int,
        library: Library,
        support: Sequence[Kernel],
        cpus: Sequence[int],
        cache_bytes: int,
    ) -> None:
        self._program, self._sequence, self._vocabulary = program, sequence, vocabulary
        self._support = support
        self._decode_bytes = max(_DECODE_BYTES, 4 * cache_bytes)
        self._random = np.random.default_rng(0)
        self.libraries = {library.isa.name: library}
        self._linked = {library.isa.name: program.link(library)}
        self._executor = runtime.shared.executor(library, cpus)

    def seconds(self, way: ExecutionConfig, rows: int) -> float:
        """Measure the seconds of one step of `rows` rows, or of as many as the sequence has room for."""
        if way.isa not in self._linked:
            library = self.libraries[way.isa] = runtime.shared.library(select(way.isa))
            library.load([*self._program.kernels(), *self._support], self._executor.threads)
            self._linked[way.isa] = self._program.link(library)
        linked = self._linked[way.isa]
        rows = min(rows, self._sequence.max_length)
        self._sequence.reserve(rows)
        program = self._program
        program.tokens[:rows] = self._random.integers(0, self._vocabulary, rows)
        program.positions[:rows] = np.arange(rows)
        program.segments[:rows] = 0
        pages = self._sequence.pages
        program.tables[0, : len(pages)] = pages
        program.slots[0, : len(pages)] = self._sequence.slots
        program.starts[:2], program.segment_states[0] = (0, rows), self._sequence.states
        program.outputs[0] = rows - 1
        program.count(rows, 1, 1)
        program.tile_prompts(way.prompt_columns)
        count = program.first(self._decode_bytes if rows == 1 else _PREFILL_BYTES * _PREFILL_ROWS // rows)
        with self._executor.lead():
            start = time.perf_counter()
            self._executor.run(linked.first(count), way.threads)
            return time.perf_counter() - start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._executor.close()
        self._sequence.close()
