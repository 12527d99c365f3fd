"""What is timed: the engine's own passes, without a tokenizer or a sampler around them."""

import time
from typing import Protocol

import numpy as np

from seventy.engine.model import MAX_ROWS, Model, Rows


class Engine(Protocol):
    """One side of a comparison. Every call begins with an empty cache and gives seconds."""

    name: str

    def prefill(self, tokens: int) -> float:
        """Reading a prompt of so many random tokens, logits of the last one."""
        ...

    def decode(self, tokens: int, depth: int) -> float:
        """Reading so many random tokens one by one after `depth` others (which are not timed)."""
        ...

    def batch(self, rows: int) -> float:
        """One pass over so many rows at a small depth, logits of the last one."""
        ...

    def close(self) -> None: ...


class Seventy:
    """Our engine, in this process."""

    name = "seventy"

    def __init__(self, model: Model, seed: int = 0) -> None:
        self.model = model
        self._random = np.random.default_rng(seed)
        self._sequence = model.new_sequence()

    def _tokens(self, n: int) -> list[int]:
        tokens: list[int] = self._random.integers(0, self.model.config.vocabulary, n).tolist()
        return tokens

    def _read(self, tokens: list[int]) -> None:
        for first in range(0, len(tokens), MAX_ROWS):
            part = tokens[first : first + MAX_ROWS]
            self.model.step([Rows(self._sequence, part, int(first + MAX_ROWS >= len(tokens)))])

    def prefill(self, tokens: int) -> float:
        self._sequence.truncate(0)
        prompt = self._tokens(tokens)
        start = time.perf_counter()
        self._read(prompt)
        return time.perf_counter() - start

    def decode(self, tokens: int, depth: int) -> float:
        self._sequence.truncate(0)
        if depth:
            self._read(self._tokens(depth))
        answer = self._tokens(tokens)
        start = time.perf_counter()
        for token in answer:
            self._read([token])
        return time.perf_counter() - start

    def batch(self, rows: int) -> float:
        return self.prefill(rows)

    def close(self) -> None:
        self.model.close()
