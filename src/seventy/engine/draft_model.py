"""A small model of the same vocabulary that guesses what a large one will write.

It shares the threads and the account of memory, and has a cache of its own, in which each text is a sequence as
anywhere: what it guessed is committed once it was right (engine/passes.py). A text is read by it when it is first
tried; until there is time for all of it (engine/governor.py), the beginning and the end only.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seventy import models
from seventy.cache.prefix import Sequence as CachedSequence
from seventy.cache.states import EMPTY
from seventy.engine.generation import Generation
from seventy.engine.model import Model, Segment, Step
from seventy.engine.passes import LEAST_TAIL, LITTLE, MAX_PASSES, PassDrafter, Passes
from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.kernels.short_convolution import MAX_PENDING
from seventy.language import t

# How often the first guess of a text is right before anything was counted.
_FIRST_SHARE = 0.6
# Of a text that is too long to be read at once: tokens of its beginning, on which attention leans, and of its end
# LEAST_TAIL or more.
_HEAD = 4
# Of vocabularies that differ by a larger share of their tokens no guess is taken.
_MOST_DIFFERENT = 0.02


class Vocabularies:
    """Maps tokens and logits between a draft model and the model it drafts for."""

    def __init__(self, target: Mapping[str, Any], draft: Mapping[str, Any], rows: tuple[int, int]) -> None:
        """Compare the metadata of both files; `rows` is how many logits each model gives.

        Tokens are the same where they are written the same. Raises SeventyError with the reason where too many are not.
        """
        kinds = [str(each.get("tokenizer.ggml.model")) for each in (target, draft)]
        if kinds[0] != kinds[1]:
            raise SeventyError(
                "its tokens are made in another way ({theirs}, not {ours})",
                theirs=kinds[1], ours=kinds[0],
            )
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
                "{different} of {ours_count} tokens are none of its {theirs_count}: token {first} is {ours!r}, and "
                "{other} there",
                different=different, ours_count=len(ours), theirs_count=len(theirs), first=first, ours=ours[first],
                other=other,
            )
        self._places, self.known = (here, self._to_draft[here]), len(here)

    def to_draft(self, tokens: Sequence[int]) -> list[int]:
        """Return a text's tokens as the draft model's; one that it lacks is its first."""
        if self._to_draft is None:
            return [token if token < self.known else 0 for token in tokens]
        found: list[int] = np.maximum(self._to_draft[np.asarray(tokens, np.intp)], 0).tolist()
        return found

    def logits(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the draft model's logits in the order of the other vocabulary, as a copy that may be changed."""
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
        raise SeventyError(
            "{draft} cannot draft for {target}: {error}",
            draft=os.fspath(draft), target=os.fspath(target), error=error,
        ) from None


class DraftModel(Passes):
    """A draft model: its weights, its cache, and how long it takes to read."""

    name = t("the draft model")

    def __init__(self, model: Model, vocabularies: Vocabularies, read_share: float) -> None:
        """`read_share` is what it reads for a token of what the model that it guesses for does."""
        super().__init__(_FIRST_SHARE, read_share, read_share)
        self.model, self.vocabularies = model, vocabularies

    def warm(self) -> None:
        """Read something twice: the first pass of a model is slow, the second says what reading takes."""
        tokens = [0] * min(_HEAD + LEAST_TAIL, self.model.context)
        for _ in range(2):
            self._row_seconds = None
            sequence = self.model.new_sequence()
            sequence.open(tokens)
            self.read(sequence, tokens)
            sequence.close()
            self.model.cache.forget()
        self.seconds_read = 0.0

    def open(self, generation: Generation, sequence: CachedSequence | None = None) -> "ModelDrafter":
        return ModelDrafter(self, generation)

    def step(self, segments: Sequence[Segment]) -> Step:
        return self.model.step(segments)

    def read(self, sequence: CachedSequence, tokens: list[int]) -> None:
        """Read the next tokens of a sequence, some hundreds in a pass, without computing logits."""
        while tokens:
            rows = tokens[: sequence.until_mark(min(len(tokens), self.model.max_rows))]
            start = time.monotonic()
            sequence.reserve(sequence.length + len(rows))
            step = self.model.step([Segment(sequence.length, rows, 0, sequence.pages, sequence.states)])
            if step.bad:
                raise SeventyError("the draft model's states are not numbers (NaN or infinity): its file is damaged")
            sequence.commit(rows)
            self.record_reading(len(rows), time.monotonic() - start)
            tokens = tokens[len(rows) :]


class ModelDrafter(PassDrafter):
    """Drafts one text with the draft model, and tracks which of its tokens that model has read."""

    def __init__(self, of: DraftModel, generation: Generation) -> None:
        super().__init__(of, generation)
        self._of = of
        # The text as the draft model reads it: without the `_skipped` tokens behind its head.
        self._sequence: CachedSequence | None = None
        self._skipped = 0
        # Tokens that the sequence lacks and the first pass reads, as the draft model's tokens.
        self._base: list[int] = []

    def _most(self) -> int:
        room = self._of.model.context - (len(self._generation.tokens) - self._skipped)
        if self._of.model.cache.recurrent:
            room = min(room, MAX_PENDING)
        return min(MAX_PASSES, room)

    @property
    def behind(self) -> int:
        if self._sequence is None:
            return len(self._generation.tokens) - 1
        missing = len(self._generation.tokens) - self._skipped - self._sequence.length
        return missing - 1 if missing > LITTLE else 0

    def can_read(self, rows: int) -> bool:
        return rows >= self.behind or (self._sequence is None and rows >= _HEAD + LEAST_TAIL)

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
            self.give_up(error)
        return self.able

    def _may_read_all(self, tokens: Sequence[int], rows: int) -> bool:
        """Whether what was skipped can be read with `rows`, and leaves room for guesses."""
        return self._skipped > 0 and len(tokens) - 1 <= rows and len(tokens) + MAX_PASSES <= self._of.model.context

    def _open(self, tokens: Sequence[int], rows: int) -> bool:
        """Begin with what the cache holds, and leave so much out that no more than `rows` are missing."""
        self._sequence, self._skipped = self._sequence or self._of.model.new_sequence(), 0
        known = self._sequence.open(self._view(tokens[:-1]))
        if len(tokens) - 1 - known > rows:
            if rows < _HEAD + LEAST_TAIL:
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

    def _reserve(self, n: int) -> bool:
        assert self._sequence is not None, "the draft model has not read the text"
        self._base = self._view(self._generation.tokens)[self._sequence.length :]
        length = self._sequence.length + len(self._base) + n - 1
        if not self._has_room(length):
            return False
        self._sequence.reserve(length)
        return True

    def segment(self) -> Segment:
        sequence, fed = self._sequence, self._of.vocabularies.to_draft(self.guesses)
        assert sequence is not None
        at, rows = sequence.length, self._base
        if fed and self._of.model.cache.recurrent:
            # A state goes on from what is committed only: all guesses again, as drafted rows.
            rows = [*self._base, *fed]
        elif fed:
            at, rows = at + len(self._base) + len(fed) - 1, fed[-1:]
        sequence.reserve(at + len(rows), len(fed))
        return Segment(at, rows, 1, sequence.pages, sequence.states)

    def _ours(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._of.vocabularies.logits(logits)

    def _commit(self, right: int) -> None:
        assert self._sequence is not None
        # The last guess was not read.
        read = self.guesses[: min(right, len(self.guesses) - 1)]
        self._sequence.commit([*self._base, *self._of.vocabularies.to_draft(read)])

    def close(self) -> None:
        if self._sequence is not None:
            self._sequence.close()
            self._sequence, self._skipped, self.guesses = None, 0, []
