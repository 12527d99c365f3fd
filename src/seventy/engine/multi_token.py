"""Guesses of a model's own block of multi-token prediction (models/blocks/multi_token.py).

Its keys and values stand in the model's pages, filed under the position of the token that it takes in; the sequence
knows how many it has read (cache/prefix.py). What it takes in besides is what the model made of the token before, which
every step keeps in the pages: so a text that it did not guess is caught up when it is first tried, in one pass, and
what is shared, preempted or left and gone on with later needs nothing more. A guess is fed with what the block itself
made of the token before; once it was right, it is read again with what the model made of it.
"""

import time
from collections.abc import Sequence

from seventy.cache.prefix import Sequence as CachedSequence
from seventy.engine.generation import Generation
from seventy.engine.model import Model, Segment, Step
from seventy.engine.passes import LITTLE, PassDrafter, Passes
from seventy.errors import SeventyError

# The most guesses of one text in a step, and how often the first is right before anything was counted.
MOST_GUESSES, _FIRST_SHARE = 4, 0.7
_WARM_PASSES = 3


class MultiToken(Passes):
    """Guesses of the block of a model that has one."""

    name, cuts = "MTP", True

    def __init__(self, model: Model) -> None:
        program = model.program
        with_head, without = (
            program.bytes_of_one_guess(outputs) / program.bytes_of_one_row(outputs) for outputs in (True, False)
        )
        super().__init__(_FIRST_SHARE, with_head, without)
        self.model = model

    def warm(self) -> None:
        """Run a pass some times: the first is slow, the others say what it takes."""
        sequence, found = self.model.new_sequence(), list[float]()
        sequence.reserve(2)
        for _ in range(_WARM_PASSES):
            start = time.monotonic()
            self.step([Segment(1, [0], 1, sequence.pages, read=1)])
            found.append(time.monotonic() - start)
        sequence.close()
        self._pass_seconds[1] = min(found)

    def open(self, generation: Generation, sequence: CachedSequence) -> PassDrafter:
        return BlockDrafter(self, generation, sequence)

    def step(self, segments: Sequence[Segment]) -> Step:
        return self.model.predict(segments)

    def read(self, sequence: CachedSequence, tokens: list[int]) -> None:
        """Read tokens behind those that the block has read, all of them the sequence's, without logits."""
        while tokens:
            rows, at, start = tokens[: self.model.max_rows], sequence.predicted, time.monotonic()
            if self.step([Segment(at, rows, 0, sequence.pages)]).bad:
                raise SeventyError("its states are not numbers (NaN or infinity): the file is damaged")
            sequence.predict(at, at + len(rows))
            self.record_reading(len(rows), time.monotonic() - start)
            tokens = tokens[len(rows) :]


class BlockDrafter(PassDrafter):
    """Drafts one text with the block of multi-token prediction, and tracks how far the block has read."""

    def __init__(self, of: MultiToken, generation: Generation, sequence: CachedSequence) -> None:
        super().__init__(of, generation)
        self._of, self._sequence = of, sequence
        # Where the first pass begins.
        self._start = 0

    def _most(self) -> int:
        return min(MOST_GUESSES, self._of.model.context - len(self._generation.tokens))

    @property
    def behind(self) -> int:
        missing = len(self._generation.tokens) - self._sequence.predicted
        return missing - 1 if missing > LITTLE else 0

    def can_read(self, rows: int) -> bool:
        return rows >= self.behind

    def catch_up(self, rows: int) -> bool:
        try:
            if self.behind > rows:
                return False
            if self.behind:
                self._of.read(self._sequence, self._generation.tokens[self._sequence.predicted : -1])
        except SeventyError as error:
            self.give_up(error)
        return self.able

    def _reserve(self, n: int) -> bool:
        # The same rows that the step will have.
        self._sequence.reserve(self._at + n, n)
        self._start = self._sequence.predicted
        return True

    def segment(self) -> Segment:
        at, rows = self._start, self._generation.tokens[self._start :]
        if self.guesses:
            at, rows = self._at + len(self.guesses) - 1, self.guesses[-1:]
        return Segment(at, rows, 1, self._sequence.pages)

    def _commit(self, right: int) -> None:
        self._sequence.predict(self._start, self._at)

    def close(self) -> None:
        self.guesses = []
