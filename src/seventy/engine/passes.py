"""Guesses that take a pass of something each: of a draft model, or of a model's block of multi-token prediction.

All texts of a step are guessed together, a token each in a pass. Guesses are drawn as the text's own tokens will be,
with the same random numbers, so that where both expect the same they take the same.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seventy.cache.prefix import Sequence as CachedSequence
from seventy.engine.generation import Generation
from seventy.engine.governor import MAX_DRAFT
from seventy.engine.model import Segment, Step
from seventy.errors import SeventyError

_log = logging.getLogger("seventy.engine")

# The most guesses of one text in a step: each takes a pass.
MAX_PASSES = 8
# How many guesses the first share counts for where nothing was counted; the same of what other texts say. Counts are
# halved at the last number.
FIRST_COUNT, TEXT_COUNT, _MOST_COUNT = 4.0, 4.0, 64.0
# Each text is another chance, whatever was guessed of those before.
_LEAST_SHARE = 0.3
# With less hope a guess is not looked at.
_LEAST_CHANCE = 0.1
# Texts that lack no more are read with the first pass.
LITTLE = 8
# Reading so many rows or more says what a row takes.
LEAST_TAIL = 32
_WEIGHT = 1 / 8


@dataclass(frozen=True, slots=True)
class Worth:
    """The probabilities from which guesses pay: `row` for a row of the step, `next_pass` for another drafting pass.

    Each is the probability that the guess and all before it are right.
    """

    row: float = 0.0
    next_pass: float = 0.0


class Counts:
    """Counts how often guesses were right by their position in a step, given that those before them were."""

    def __init__(self, first: float, count: float, of_all: "Counts | None" = None) -> None:
        """Expect what was counted of all texts, or of a first guess `first`, as if `count` had been counted."""
        shares = [first] * MAX_PASSES if of_all is None else of_all.shares
        self._expected, self._count = [max(share, _LEAST_SHARE) for share in shares], count
        self._right, self._counted = [0.0] * MAX_PASSES, [0.0] * MAX_PASSES

    def add(self, guessed: int, right: int) -> None:
        for i in range(min(guessed, right + 1)):
            self._right[i] += i < right
            self._counted[i] += 1
            if self._counted[i] > _MOST_COUNT:
                self._right[i] /= 2
                self._counted[i] /= 2

    @property
    def shares(self) -> list[float]:
        """The share of right guesses at each position.

        With few counts, a position is expected to deviate from its prior as much as the position before it does.
        """
        shares, better = list[float](), 1.0
        for right, counted, expected in zip(self._right, self._counted, self._expected, strict=True):
            share = (right + min(1.0, expected * better) * self._count) / (counted + self._count)
            shares.append(share)
            better = share / expected
        return shares

    def chances(self, most: int) -> list[float]:
        chances, chance = list[float](), 1.0
        for share in self.shares[:most]:
            chance *= share
            if chance < _LEAST_CHANCE:
                break
            chances.append(chance)
        return chances


class Passes(ABC):
    """Guesses for all texts of one scheduler, in its thread. `name` says what makes them.

    With `cuts`, a guess is left out, and those behind it, where what makes it is not certain enough.
    """

    name: str
    cuts = False

    def __init__(self, first_share: float, pass_share: float, read_share: float) -> None:
        """Of first guesses `first_share` should be right; a pass takes `pass_share` of what a step does, and a row that
        is only read `read_share` of what a row of a prompt does.
        """
        self.first_share = first_share
        self.counts = Counts(first_share, FIRST_COUNT)
        self.seconds_read = 0.0
        self._pass_share, self._read_share = pass_share, read_share
        # Seconds of a pass by the number of texts, and of a row where texts are read.
        self._pass_seconds: dict[int, float] = {}
        self._row_seconds: float | None = None

    @abstractmethod
    def open(self, generation: Generation, sequence: CachedSequence) -> "PassDrafter":
        """Return what guesses a text, which stands in this sequence of the model's cache."""

    @abstractmethod
    def step(self, segments: Sequence[Segment]) -> Step:
        """Run a pass over these."""

    def pass_seconds(self, texts: int, plain: float) -> float:
        """Return what a pass for so many texts takes; first by `plain`, what a step of the model takes."""
        if not self._pass_seconds:
            return 1.2 * self._pass_share * plain
        return self._pass_seconds[min(self._pass_seconds, key=lambda known: abs(known - texts))]

    @property
    def measured_pass(self) -> float | None:
        """Seconds of a pass for one text, or the fewest there were; None before one."""
        return self._pass_seconds[min(self._pass_seconds)] if self._pass_seconds else None

    def reading_seconds(self, rows: int, prompt_row: float) -> float:
        """Return the seconds to read `rows` rows; before any were timed, estimated from the model's prompts."""
        return rows * (1.2 * self._read_share * prompt_row if self._row_seconds is None else self._row_seconds)

    def record_reading(self, rows: int, seconds: float) -> None:
        """Update the reading speed from a pass that read `rows` rows and guessed nothing."""
        self.seconds_read += seconds
        if rows >= LEAST_TAIL:
            known = seconds / rows if self._row_seconds is None else self._row_seconds
            self._row_seconds = known + (seconds / rows - known) * _WEIGHT

    def guess(self, wanted: Sequence[tuple["PassDrafter", int]], worth: Worth | None = None) -> None:
        """Let each drafter guess its number of tokens (`PassDrafter.guesses`), or fewer if more do not pay."""
        worth = worth if worth and self.cuts else None
        wanted = [(drafter, n) for drafter, n in wanted if drafter.begin(n)]
        for done in range(max((n for _, n in wanted), default=0)):
            active = [drafter for drafter, n in wanted if n > done and drafter.able and drafter.certain]
            if not active:
                return
            start = time.monotonic()
            segments = [drafter.segment() for drafter in active]
            step = self.step(segments)
            logits = [None if i in step.bad else step.logits[i] for i in range(len(active))]
            seconds = time.monotonic() - start
            if all(len(segment.tokens) <= 2 for segment in segments):
                known = self._pass_seconds.setdefault(len(active), seconds)
                self._pass_seconds[len(active)] = known + (seconds - known) * _WEIGHT
            for drafter, row in zip(active, logits, strict=True):
                drafter.take(row, worth)


class PassDrafter(ABC):
    """Drafts one text by passes of a draft model or block, and holds its guesses for the current step."""

    def __init__(self, of: Passes, generation: Generation) -> None:
        self._passes, self._generation = of, generation
        self._counts = Counts(of.first_share, TEXT_COUNT, of.counts)
        # The guesses, how many tokens the text had before them, and what chooses them.
        self.guesses: list[int] = []
        self._at = 0
        self._choose: Callable[[NDArray[np.float32]], int] | None = None
        # How likely all of them are right by what makes them, and whether that is worth another pass.
        self._chance = 1.0
        self.able = self.certain = True

    def chances(self, most: int) -> list[float]:
        """Return how likely it is that the first guess is right, the first two, and so on; `most` at most."""
        return self._counts.chances(max(0, min(most, self._most()))) if self.able else []

    @abstractmethod
    def _most(self) -> int:
        """How many guesses there may be in a step; 0 or less where there is no room for any."""

    @property
    @abstractmethod
    def behind(self) -> int:
        """The number of tokens it has not read, beyond those that the first pass reads anyway."""

    @abstractmethod
    def can_read(self, rows: int) -> bool:
        """Return whether it can guess after reading this many rows."""

    @abstractmethod
    def catch_up(self, rows: int) -> bool:
        """Read what is missing, `rows` at most. Return whether it can be guessed now."""

    def begin(self, n: int) -> bool:
        """Begin with `n` guesses for the text as it is now, of which the last tokens only may be missing.

        Returns False where the cache has no room for them.
        """
        self.guesses, self._at = [], len(self._generation.tokens)
        if not self._reserve(n):
            self.close()
            return False
        self._choose, self._chance, self.certain = self._generation.chooser(), 1.0, True
        return True

    @abstractmethod
    def _reserve(self, n: int) -> bool:
        """Make room for `n` guesses; False where there is none."""

    @abstractmethod
    def segment(self) -> Segment:
        """Return the next pass of this text: its last tokens, or the last guess."""

    def take(self, logits: NDArray[np.float32] | None, worth: Worth | None = None) -> None:
        """Guess the next token from a pass's logits (None if one was NaN), if it is likely enough to pay."""
        assert self._choose is not None
        try:
            if logits is None:
                raise SeventyError("its answer is not a number (NaN or infinity)")
            logits = self._ours(logits)
            if worth:
                self._chance *= self._generation.certainty(logits)
                self.certain = self._chance >= worth.next_pass
                if self._chance < worth.row:
                    return
            guess = self._choose(logits)
        except SeventyError as error:
            self.give_up(error)
            return
        self.guesses.append(guess)

    def _ours(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits of a pass as of the text's vocabulary."""
        return logits

    def give_up(self, error: BaseException) -> None:
        _log.warning("a text is not guessed by %s any more: %s", self._passes.name, error)
        self.able = False
        self.close()

    def observe(self) -> None:
        """Take in what was written since the guesses: what was read and is right stays read, and count."""
        if not self.guesses:
            return
        written = self._generation.tokens[self._at :]
        tried = min(len(self.guesses), len(written))
        right = next((i for i in range(tried) if self.guesses[i] != written[i]), tried)
        for counts in (self._counts, self._passes.counts):
            counts.add(tried, right)
        self._commit(right)
        self.guesses = []

    @abstractmethod
    def _commit(self, right: int) -> None:
        """Keep what was read of the text and of the first `right` guesses."""

    @abstractmethod
    def close(self) -> None:
        """Release the cache. The text is read again if it is needed."""


assert MAX_PASSES <= MAX_DRAFT
