"""A small model of the same vocabulary that guesses what a large one will write.

It shares the threads and the account of memory, and has a cache of its own, in which each text is a sequence as
anywhere: what it guessed is committed once it was right. All texts of a step are guessed together, a token each in a
pass. Guesses are drawn as the text's own tokens will be, with the same random numbers, so that where both models expect
the same they take the same. A text is read by it when it is first tried; until there is time for all of it
(engine/governor.py), the beginning and the end only.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seventy import models
from seventy.cache.prefix import Sequence as CachedSequence
from seventy.cache.states import EMPTY
from seventy.engine.generation import Generation
from seventy.engine.governor import MAX_DRAFT
from seventy.engine.model import Model, Segment
from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.kernels.short_convolution import MAX_PENDING

_log = logging.getLogger("seventy.engine")

# The most guesses of one text in a step: each takes a pass.
MAX_PASSES = 8
# How often the first guess of a text is right before anything was counted, and how many guesses that counts for; the
# same of what other texts say. Counts are halved at the last number.
_FIRST_SHARE, _FIRST_COUNT, _TEXT_COUNT, _MOST_COUNT = 0.6, 4.0, 4.0, 64.0
# Each text is another chance, whatever was guessed of those before.
_LEAST_SHARE = 0.3
# With less hope a guess is not looked at.
_LEAST_CHANCE = 0.1
# Of a text that is too long to be read at once: tokens of its beginning, on which attention leans, and of its end.
_HEAD, _LEAST_TAIL = 4, 32
# Texts that lack no more are read with the first pass.
_LITTLE = 8
# Of vocabularies that differ by a larger share of their tokens no guess is taken.
_MOST_DIFFERENT = 0.02
_WEIGHT = 1 / 8


class Vocabularies:
    """How the tokens of a draft model are those of the model it guesses for."""

    def __init__(self, target: Mapping[str, Any], draft: Mapping[str, Any], rows: tuple[int, int]) -> None:
        """Compare the metadata of both files; `rows` is how many logits each model gives.

        Tokens are the same where they are written the same. Raises SeventyError with the reason where too many are not.
        """
        kinds = [str(each.get("tokenizer.ggml.model")) for each in (target, draft)]
        if kinds[0] != kinds[1]:
            raise SeventyError(f"its tokens are made in another way ({kinds[1]}, not {kinds[0]})")
        ours, theirs = (list(each.get("tokenizer.ggml.tokens") or ()) for each in (target, draft))
        self.rows = rows
        self._to_draft: NDArray[np.int32] | None = None
        self._places: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
        common = min(len(ours), len(theirs))
        if ours[:common] == theirs[:common] and max(len(ours), len(theirs)) - common <= _MOST_DIFFERENT * common:
            self.known = min(*rows, common)
            return
        of_text = {text: id for id, text in enumerate(theirs)}
        self._to_draft = np.array([of_text.get(text, -1) for text in ours], np.int32)
        here = np.flatnonzero((self._to_draft >= 0) & (self._to_draft < rows[1])).astype(np.int32)
        different = len(ours) - len(here)
        if different > _MOST_DIFFERENT * len(ours):
            first = next(id for id, text in enumerate(ours) if of_text.get(text) != id)
            other = repr(theirs[first]) if first < len(theirs) else "none"
            raise SeventyError(
                f"{different} of {len(ours)} tokens are none of its {len(theirs)}: token {first} is {ours[first]!r}, "
                f"and {other} there"
            )
        self._places, self.known = (here, self._to_draft[here]), len(here)

    def to_draft(self, tokens: Sequence[int]) -> list[int]:
        """Return a text's tokens as the draft model's; one that it lacks is its first."""
        if self._to_draft is None:
            return [token if token < self.known else 0 for token in tokens]
        found: list[int] = np.maximum(self._to_draft[np.asarray(tokens, np.intp)], 0).tolist()
        return found

    def logits(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the draft model's logits as of the other vocabulary, to be changed by whoever wants."""
        if self._places is None and self.known == self.rows[0]:
            return logits[: self.known]
        found = np.full(self.rows[0], -np.inf, np.float32)
        if self._places is None:
            found[: self.known] = logits[: self.known]
        else:
            found[self._places[0]] = logits[self._places[1]]
        return found


def compare(target: str | os.PathLike[str], draft: str | os.PathLike[str]) -> Vocabularies:
    """Compare the vocabularies of two model files; raises SeventyError where one cannot guess for the other."""
    metadata: list[Mapping[str, Any]] = []
    rows = []
    for path in (target, draft):
        with GGUF(path) as file:
            metadata.append(file.metadata)
            rows.append(models.find(file.metadata.get("general.architecture")).config(file.metadata).vocabulary)
    try:
        return Vocabularies(metadata[0], metadata[1], (rows[0], rows[1]))
    except SeventyError as error:
        raise SeventyError(f"{os.fspath(draft)} cannot draft for {os.fspath(target)}: {error}") from None


class Counts:
    """How often guesses were right by their position in a step, where those before were."""

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
        """How often the guess at each position is right.

        Where little was counted it is expected to be as much better or worse than elsewhere as the one before it.
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


class DraftModel:
    """Guesses for all texts of one scheduler, in its thread."""

    def __init__(self, model: Model, vocabularies: Vocabularies, read_share: float) -> None:
        """`read_share` is what it reads for a token of what the model that it guesses for does."""
        self.model, self.vocabularies = model, vocabularies
        self.counts = Counts(_FIRST_SHARE, _FIRST_COUNT)
        self.seconds_read = 0.0
        self._read_share = read_share
        # Seconds of a pass by the number of texts, and of a row where texts are read.
        self._pass_seconds: dict[int, float] = {}
        self._row_seconds: float | None = None

    def warm(self) -> None:
        """Read something twice: the first pass of a model is slow, the second says what reading takes."""
        tokens = [0] * min(_HEAD + _LEAST_TAIL, self.model.context)
        for _ in range(2):
            self._row_seconds = None
            sequence = self.model.new_sequence()
            sequence.open(tokens)
            self.read(sequence, tokens)
            sequence.close()
            self.model.cache.forget()
        self.seconds_read = 0.0

    def open(self, generation: Generation) -> "ModelDrafter":
        return ModelDrafter(self, generation)

    def pass_seconds(self, texts: int, plain: float) -> float:
        """Return what a pass for so many texts takes; first by `plain`, what a step of the large model takes."""
        if not self._pass_seconds:
            return 1.2 * self._read_share * plain
        return self._pass_seconds[min(self._pass_seconds, key=lambda known: abs(known - texts))]

    @property
    def measured_pass(self) -> float | None:
        """Seconds of a pass for one text, or the fewest there were; None before one."""
        return self._pass_seconds[min(self._pass_seconds)] if self._pass_seconds else None

    def reading_seconds(self, rows: int, prompt_row: float) -> float:
        """Return what reading so many rows takes; before some were, by a row of prompts of the large model."""
        return rows * (1.2 * self._read_share * prompt_row if self._row_seconds is None else self._row_seconds)

    def guess(self, wanted: Sequence[tuple["ModelDrafter", int]]) -> None:
        """Let each drafter guess so many tokens (`ModelDrafter.guesses`), fewer where something prevents it."""
        wanted = [(drafter, n) for drafter, n in wanted if drafter.begin(n)]
        for done in range(max((n for _, n in wanted), default=0)):
            active = [drafter for drafter, n in wanted if n > done and drafter.able]
            if not active:
                return
            start = time.monotonic()
            segments = [drafter.segment() for drafter in active]
            step = self.model.step(segments)
            logits = [None if i in step.bad else step.logits[i] for i in range(len(active))]
            seconds = time.monotonic() - start
            if all(len(segment.tokens) <= 2 for segment in segments):
                known = self._pass_seconds.setdefault(len(active), seconds)
                self._pass_seconds[len(active)] = known + (seconds - known) * _WEIGHT
            for drafter, row in zip(active, logits, strict=True):
                drafter.take(row)

    def read(self, sequence: CachedSequence, tokens: list[int]) -> None:
        """Read tokens behind those of a sequence, some hundreds a pass, without logits."""
        while tokens:
            rows = tokens[: sequence.until_mark(min(len(tokens), self.model.max_rows))]
            start = time.monotonic()
            sequence.reserve(sequence.length + len(rows))
            step = self.model.step([Segment(sequence.length, rows, 0, sequence.pages, sequence.states)])
            if step.bad:
                raise SeventyError("the draft model's states are not numbers (NaN or infinity): its file is damaged")
            sequence.commit(rows)
            seconds = time.monotonic() - start
            self.seconds_read += seconds
            if len(rows) >= _LEAST_TAIL:
                known = seconds / len(rows) if self._row_seconds is None else self._row_seconds
                self._row_seconds = known + (seconds / len(rows) - known) * _WEIGHT
            tokens = tokens[len(rows) :]


class ModelDrafter:
    """What the draft model knows of one text."""

    def __init__(self, of: DraftModel, generation: Generation) -> None:
        self._of, self._generation = of, generation
        self._counts = Counts(_FIRST_SHARE, _TEXT_COUNT, of.counts)
        # The text as the draft model reads it: without the `_skipped` tokens behind its head.
        self._sequence: CachedSequence | None = None
        self._skipped = 0
        # Tokens that the sequence lacks and the first pass reads, and the guesses, as the draft model's tokens; the
        # guesses, how many tokens the text had before them, and what chooses them.
        self._base: list[int] = []
        self._fed: list[int] = []
        self.guesses: list[int] = []
        self._at = 0
        self._choose: Callable[[NDArray[np.float32]], int] | None = None
        self.able = True

    def chances(self, most: int) -> list[float]:
        """Return how likely it is that the first guess is right, the first two, and so on; `most` at most."""
        if not self.able:
            return []
        room = self._of.model.context - (len(self._generation.tokens) - self._skipped)
        if self._of.model.cache.recurrent:
            room = min(room, MAX_PENDING)
        return self._counts.chances(max(0, min(most, MAX_PASSES, room)))

    @property
    def behind(self) -> int:
        """How many tokens it has not read, those that the first pass reads anyway not counted."""
        if self._sequence is None:
            return len(self._generation.tokens) - 1
        missing = len(self._generation.tokens) - self._skipped - self._sequence.length
        return missing - 1 if missing > _LITTLE else 0

    def can_read(self, rows: int) -> bool:
        """Whether it can guess once it has read so many rows."""
        return rows >= self.behind or (self._sequence is None and rows >= _HEAD + _LEAST_TAIL)

    def catch_up(self, rows: int) -> bool:
        """Read what is missing, `rows` at most, else the end of the text. Return whether it can be guessed now."""
        tokens = self._generation.tokens
        try:
            if (self._sequence is None or self._may_read_all(tokens, rows)) and not self._open(tokens, rows):
                return False
            assert self._sequence is not None
            if not self.behind:
                return True
            missing = self._view(tokens)[self._sequence.length : -1]
            length = self._sequence.length + len(missing) + 1 + MAX_PASSES
            if len(missing) > rows or not self._has_room(length):
                return False
            self._of.read(self._sequence, missing)
        except SeventyError as error:
            self._give_up(error)
        return self.able

    def _may_read_all(self, tokens: Sequence[int], rows: int) -> bool:
        """Whether what was skipped can be read with `rows`, and leaves room for guesses."""
        return self._skipped > 0 and len(tokens) - 1 <= rows and len(tokens) + MAX_PASSES <= self._of.model.context

    def _open(self, tokens: Sequence[int], rows: int) -> bool:
        """Begin with what the cache holds, and leave so much out that no more than `rows` are missing."""
        self._sequence, self._skipped = self._sequence or self._of.model.new_sequence(), 0
        known = self._sequence.open(self._view(tokens[:-1]))
        if len(tokens) - 1 - known > rows:
            if rows < _HEAD + _LEAST_TAIL:
                self.close()
                return False
            self._sequence.open(self._view(tokens[:_HEAD]))
            self._skipped = len(tokens) - 1 - rows
        return True

    def _has_room(self, length: int) -> bool:
        """Whether the cache has room for so many positions of the text, and for the states that steps need."""
        cache, sequence = self._of.model.cache, self._sequence
        assert sequence is not None
        states = sequence.states[:2].count(EMPTY) if cache.recurrent else 0
        return sequence.missing_pages(length) <= cache.free_pages and states <= cache.states.free

    def _view(self, tokens: Sequence[int]) -> list[int]:
        """Return the text as the draft model reads it."""
        if self._skipped:
            tokens = [*tokens[:_HEAD], *tokens[_HEAD + self._skipped :]]
        return self._of.vocabularies.to_draft(tokens)

    def _give_up(self, error: BaseException) -> None:
        _log.warning("a text is not guessed by the draft model any more: %s", error)
        self.able = False
        self.close()

    def begin(self, n: int) -> bool:
        """Begin with `n` guesses for the text as it is now, of which the last tokens only may be missing.

        Returns False where the cache has no room for them.
        """
        tokens = self._generation.tokens
        self.guesses, self._fed, self._at = [], [], len(tokens)
        assert self._sequence is not None, "the draft model has not read the text"
        self._base = self._view(tokens)[self._sequence.length :]
        length = self._sequence.length + len(self._base) + n - 1
        if not self._has_room(length):
            self.close()
            return False
        self._sequence.reserve(length)
        self._choose = self._generation.chooser()
        return True

    def segment(self) -> Segment:
        """The next pass of this text: its last tokens, or the last guess."""
        sequence = self._sequence
        assert sequence is not None
        at, rows = sequence.length, self._base
        if self._fed and self._of.model.cache.recurrent:
            # A state goes on from what is committed only: all guesses again, as drafted rows.
            rows = [*self._base, *self._fed]
        elif self._fed:
            at, rows = at + len(self._base) + len(self._fed) - 1, self._fed[-1:]
        sequence.reserve(at + len(rows), len(self._fed))
        return Segment(at, rows, 1, sequence.pages, sequence.states)

    def take(self, logits: NDArray[np.float32] | None) -> None:
        """Guess the next token by the logits of a pass; None where they are no numbers."""
        assert self._choose is not None
        try:
            if logits is None:
                raise SeventyError("its answer is not a number (NaN or infinity)")
            guess = self._choose(self._of.vocabularies.logits(logits))
        except SeventyError as error:
            self._give_up(error)
            return
        self.guesses.append(guess)
        self._fed += self._of.vocabularies.to_draft([guess])

    def observe(self) -> None:
        """Take in what was written since the guesses: commit what was read and is right, and count."""
        if not self.guesses:
            return
        written = self._generation.tokens[self._at :]
        tried = min(len(self.guesses), len(written))
        right = next((i for i in range(tried) if self.guesses[i] != written[i]), tried)
        for counts in (self._counts, self._of.counts):
            counts.add(tried, right)
        assert self._sequence is not None
        # The last guess was not read.
        self._sequence.commit([*self._base, *self._fed[: min(right, len(self.guesses) - 1)]])
        self.guesses = []

    def close(self) -> None:
        """Let go of the cache; it may be read again."""
        if self._sequence is not None:
            self._sequence.close()
            self._sequence, self._skipped, self.guesses = None, 0, []


assert MAX_PASSES <= MAX_DRAFT
