"""Drafts: what may come next in the running texts, guessed by whoever does it best, and what that has gained.

A step reads every weight once, whatever its rows. Guessed tokens are rows of the same step: the scheduler keeps those
that equal what the sampler chooses (engine/scheduler.py), so that a text with drafts is the text without, to the bit.
The free guesses are those of engine/lookup.py; those of a draft model (engine/draft_model.py), or of the model's own
block of multi-token prediction (engine/multi_token.py), are taken where they hope for more. How many a step carries,
the governor says (engine/governor.py).
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from seventy.cache.prefix import Sequence as CachedSequence
from seventy.engine.generation import Generation
from seventy.engine.governor import MAX_DRAFT, Governor, Offer
from seventy.engine.lookup import Lookup, Memory
from seventy.engine.passes import PassDrafter, Passes, Worth
from seventy.language import t
from seventy.runtime.threads import Aborted

_log = logging.getLogger("seventy.engine")

# What --draft takes beside a model: whatever pays, nothing, only what texts themselves hold, or the model's own block.
CHOICES = ("auto", "off", "lookup", "mtp")
# A text is read by the draft model only where its answer may still be long enough: this share of a step for each token.
_READING_SHARE = 0.25


class Drafter(Protocol):
    """Guesses the next tokens of one text at no cost, by lookup."""

    def observe(self) -> None:
        """Take in the tokens that were written since the last call."""

    def chances(self, most: int) -> list[float]:
        """Return how likely it is that the first guess is right, the first two, and so on; `most` at most."""

    def propose(self, n: int) -> list[int]:
        """Return the next `n` guesses, as many as `chances` spoke of at most."""


class TextDrafts:
    """The drafters of one text, how many of their guesses were taken and right, and the seconds that saved."""

    def __init__(
        self, generation: Generation, user: str, lookup: Drafter | None, model: PassDrafter | None = None
    ) -> None:
        self.generation, self.user, self.lookup, self.model = generation, user, lookup, model
        self.by_model = False
        self.drafted = self.accepted = 0
        self.gained_seconds = 0.0

    def stop(self) -> None:
        """Stop guessing for this text."""
        self.close()
        self.lookup = self.model = None

    def close(self) -> None:
        if self.model:
            self.model.close()


class Drafts:
    """The guesses of all texts of a scheduler; for its thread, but for `open`."""

    def __init__(self, lookup: bool = True, model: Passes | None = None, most: int = MAX_DRAFT) -> None:
        """With `lookup` what stood in texts before is guessed, with a `model` (a draft model, or the model's own block)
        what that expects; `most` at a time.
        """
        self.governor, self.model = Governor(), model
        self._memory, self.most = Memory(), most
        self.make_lookup: Callable[[Sequence[int], str], Drafter] | None = self._lookup if lookup else None
        # Of each drafter how many guesses were taken and how many right; what a row of a prompt takes.
        self.counts = {"lookup": [0, 0], "model": [0, 0]}
        self._prompt_row = 0.0
        # Of the last guesses: seconds of reading before them, and what the draft model's passes should have taken.
        self._read_seconds = self._expected = 0.0

    def _lookup(self, tokens: Sequence[int], user: str) -> Drafter:
        return Lookup(tokens, self._memory, user)

    def forget(self) -> None:
        """Forget all texts that were written: the next ones find only themselves."""
        self._memory = Memory()

    @property
    def on(self) -> bool:
        return bool(self.make_lookup or self.model)

    def open(self, generation: Generation, sequence: CachedSequence, user: str | None) -> TextDrafts:
        """Return what guesses a text of this user, nothing without one, which stands in `sequence`; by any thread."""
        if user is None:
            return TextDrafts(generation, "", None)
        lookup = self.make_lookup(generation.tokens, user) if self.make_lookup else None
        return TextDrafts(generation, user, lookup, self.model.open(generation, sequence) if self.model else None)

    def plan(self, texts: Sequence[TextDrafts], room: int) -> list[int]:
        """Return how many guesses of each of the running texts the next step carries, `room` at most in all."""
        if not self.on or not self.governor.ready(len(texts)):
            return [0] * len(texts)
        start = time.perf_counter()
        offers = [self._offer(text) for text in texts]
        self.governor.pay_looking(time.perf_counter() - start, len(texts))
        if not any(offer.chances for offer in offers):
            return [0] * len(texts)
        seconds, passing = 0.0, sum(offer.passes for offer in offers)
        if passing and self.model:
            seconds = self.model.pass_seconds(passing, self.governor.cost(len(texts)))
        return self.governor.share(offers, room, seconds)

    def _offer(self, text: TextDrafts) -> Offer:
        if self.model is None:
            # It failed, maybe while this text waited.
            text.model = None
        most = min(self.most, text.generation.room - 1)
        free = []
        if text.lookup:
            # Here, so that steps of many texts, which seldom pay for guesses, do not look at every token.
            text.lookup.observe()
            free = text.lookup.chances(most)
        chances = text.model.chances(most) if text.model else []
        text.by_model = bool(chances and (not free or chances[0] > free[0]) and self._may_read(text))
        return Offer(chances, True) if text.by_model else Offer(free)

    def _rows_to_read(self) -> int:
        """How many rows the draft model may read of texts that it has not read."""
        assert self.model is not None
        row = self.model.reading_seconds(1, self._prompt_row or self.governor.cost(1))
        return int(self.governor.for_reading / row)

    def _may_read(self, text: TextDrafts) -> bool:
        """Whether there is time to read what the draft model lacks of a text."""
        assert text.model is not None and self.model is not None
        if not text.model.behind:
            return True
        rows = min(text.model.behind, self._rows_to_read())
        seconds = self.model.reading_seconds(rows, self._prompt_row or self.governor.cost(1))
        worth = seconds <= _READING_SHARE * text.generation.room * self.governor.cost(1)
        return worth and text.model.can_read(rows)

    def propose(self, texts: Sequence[TextDrafts], numbers: Sequence[int]) -> list[list[int]]:
        """Return up to the given number of guesses for each text. Raises Aborted where the step is not wanted any more.
        """
        try:
            wanted = [(text.model, n) for text, n in zip(texts, numbers, strict=True) if n and text.by_model]
            self._ask_model(wanted, len(texts))
        except Aborted:
            # Nobody wants the step any more.
            raise
        except Exception:
            # Nobody's text depends on it.
            _log.exception("%s failed and is not asked any more", self.model.name if self.model else "the draft model")
            self.model = None
        guesses = []
        for text, n in zip(texts, numbers, strict=True):
            if text.by_model:
                guesses.append(text.model.guesses[:n] if n and self.model and text.model else [])
            else:
                guesses.append(text.lookup.propose(n) if n and text.lookup else [])
        return guesses

    def _ask_model(self, wanted: Sequence[tuple[PassDrafter | None, int]], texts: int) -> None:
        ready = list[tuple[PassDrafter, int]]()
        self._read_seconds = self._expected = 0.0
        for drafter, n in wanted:
            assert drafter is not None and self.model is not None
            before = self.model.seconds_read
            if drafter.catch_up(self._rows_to_read()):
                ready.append((drafter, n))
            seconds = self.model.seconds_read - before
            self.governor.pay_reading(seconds)
            self._read_seconds += seconds
        if ready and self.model:
            passes = max(n for _, n in ready)
            self._expected = passes * self.model.pass_seconds(len(ready), self.governor.cost(len(ready)))
            self.model.guess(ready, self._worth(texts, sum(n for _, n in ready), self._expected / passes))

    def _worth(self, texts: int, guesses: int, pass_seconds: float) -> Worth:
        """How likely guesses must be to pay for their rows, of so many in a step, and for another pass."""
        cost = self.governor.cost
        row = max(0.0, cost(texts + guesses) - cost(texts)) / guesses
        return Worth(self.governor.tokens_of(row, texts), self.governor.tokens_of(row + pass_seconds, texts))

    def observe(self, text: TextDrafts, drafted: int, accepted: int) -> None:
        """Take in what a step wrote of a text, and how many of its guesses were right."""
        if drafted:
            text.drafted, text.accepted = text.drafted + drafted, text.accepted + accepted
            counts = self.counts["model" if text.by_model else "lookup"]
            counts[0], counts[1] = counts[0] + drafted, counts[1] + accepted
        if self.model and text.model:
            text.model.observe()

    def record(
        self, texts: Sequence[TextDrafts], written: Sequence[int], rows: int, seconds: float, drafting: float
    ) -> float:
        """Learn from a step that read no prompt: what was written of each text, its rows, and what guessing took.

        Returns the seconds it saved.
        """
        billed, passes = drafting, bool(drafting and self._expected)
        if passes:
            # What was read is paid for; another program may have stopped the passes, which is not their fault.
            billed = min(drafting - self._read_seconds, 2 * self._expected)
        plain = self.governor.record(len(texts), rows, sum(written), seconds, billed, passes)
        if any(text.model and text.model.behind for text in texts):
            self.governor.keep_for_reading(seconds / len(texts))
        if rows == len(texts) and not drafting:
            return 0.0
        for text, n in zip(texts, written, strict=True):
            text.gained_seconds += plain * n - seconds - drafting
        return plain * sum(written) / len(texts) - seconds - drafting

    def record_prompt(self, rows: int, seconds: float) -> None:
        """Learn from a step that read so many rows of prompts."""
        self._prompt_row = seconds / rows
        if self.model:
            self.governor.record_prompt(seconds)

    def lines(self) -> list[str]:
        """Describe in lines of text who guessed, how much, how much was right, and the time of steps by their rows."""
        found = [
            t("drafts by {name}: {right} of {drafted} right", name=self._by(name), right=right, drafted=drafted)
            for name, (drafted, right) in self.counts.items() if drafted
        ]  # fmt: skip
        if steps := self.governor.costs():
            each = ", ".join(f"{rows} {1e3 * seconds:.1f} ms" for rows, seconds in steps)
            found.append(t("steps by rows: {each}", each=each))
        if self.model and (passes := self.model.measured_pass):
            found.append(t("a pass of {name}: {passes:.1f} ms", name=self.model.name, passes=1e3 * passes))
        return found

    def _by(self, name: str) -> str:
        return self.model.name if name == "model" and self.model else name

    def end(self, text: TextDrafts) -> None:
        """Remember a text that has been written; the next of the same user may repeat it."""
        text.close()
        if text.lookup and text.generation.written:
            self._memory.add(text.user, text.generation.tokens)
