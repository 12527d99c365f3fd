"""Drafts: what may come next in a text, guessed for nothing, and how many guesses a step should carry.

A step reads every weight once, whatever its rows. Guessed tokens are rows of the same step: the scheduler keeps those
that equal what the sampler chooses (engine/scheduler.py), so that a text with drafts is the text without, to the bit,
and a guess costs nothing but its row's time. Whether that pays is measured: `Lookup` counts how often its guesses were
right, taken or not, `Governor` how long steps of so many rows take. This module knows neither models nor requests.
"""

from bisect import bisect, insort
from collections.abc import Sequence
from math import exp, log
from typing import Protocol

from seventy.errors import SeventyError

# What --draft takes: whatever pays, nothing, or only what the text itself holds.
CHOICES = ("auto", "off", "lookup")

# So many tokens in a row must have occurred before to be taken for a repetition.
_KEY = 3
# Tokens of a prompt that are indexed: the last ones, some megabytes.
_INDEXED = 32768
# How often a guess is right before anything was counted, by the doublings of tokens guessed right before it in a row,
# and how many guesses that counts for. Counts are halved at the last number: a text changes.
_FIRST_SHARES, _FIRST_COUNT, _MOST_COUNT = (0.2, 0.3, 0.5, 0.6, 0.7, 0.8), 4.0, 64.0

# The most guesses of one text in a step, and the most rows of a step with guesses.
MAX_DRAFT, MAX_ROWS = 15, 48
# With less hope a guess is not looked at.
_LEAST_CHANCE = 0.15
# Until steps of more rows were measured: how much of a step of one row each further row takes.
_ROW_COST = 0.1
# How many guesses a step may have: few different numbers, so that each is measured often.
_EXTRA_ROWS = frozenset((1, 2, 3, 5, 7, 11, 15, 23, 31, 47))
# How many steps without guesses must be measured first, and after how many with guesses the next one is.
_LEAST_MEASURED, _STEPS_PER_PLAIN = 3, 64
# What guesses may cost: a share of the time, and at first so much of a step without any. Of what they gained, so many
# steps stand in the account at most.
_ALLOWANCE, _FIRST_ALLOWANCE, _MOST_GAIN = 0.01, 0.5, 2.0
# The least weight of a new measurement, its weight for the load, and how far off it may be (logarithms).
_LEAST_WEIGHT, _LOAD_WEIGHT, _MOST_CHANGE = 1 / 16, 1 / 4, 0.5


class Drafter(Protocol):
    """Guesses the next tokens of one text."""

    def observe(self) -> None:
        """Take in what was written since the last call."""

    def chances(self, most: int) -> list[float]:
        """Return how likely it is that the first guess is right, the first two, and so on; `most` at most."""

    def propose(self, n: int) -> list[int]:
        """Return the next `n` guesses, as many as `chances` spoke of at most."""


class Lookup:
    """Guesses that what followed the last few tokens before follows them again.

    `tokens` is the text, conversation and answer, which others extend. Between two tokens caches are cold and Python is
    slow: a token costs one dictionary entry and a comparison.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._seen = n = len(tokens)
        start = max(0, n - _INDEXED)
        columns = [tokens[start + i :] for i in range(_KEY)]
        # The place after each key; the latest stays. What comes after the last key is not known yet.
        self._after = dict(zip(zip(*columns, strict=False), range(start + _KEY, n), strict=False))
        # Where the next token may stand already, and how many were guessed right in a row.
        self._next = self._after.get(self._last_key(n), 0)
        self._run = 0
        self._right = [share * _FIRST_COUNT for share in _FIRST_SHARES]
        self._counted = [_FIRST_COUNT] * len(_FIRST_SHARES)
        self._after[self._last_key(n)] = n

    def _last_key(self, n: int) -> tuple[int, ...]:
        return tuple(self._tokens[max(0, n - _KEY) : n])

    def observe(self) -> None:
        tokens = self._tokens
        for at in range(self._seen, len(tokens)):
            if self._next:
                kind = min(self._run.bit_length(), len(_FIRST_SHARES) - 1)
                right = tokens[self._next] == tokens[at]
                self._count(kind, right)
                self._next, self._run = (self._next + 1, self._run + 1) if right else (0, 0)
            key = (tokens[at - 2], tokens[at - 1], tokens[at]) if at >= 2 else self._last_key(at + 1)
            if not self._next:
                self._next = self._after.get(key, 0)
            self._after[key] = at + 1
        self._seen = len(tokens)

    def _count(self, kind: int, right: bool) -> None:
        self._right[kind] += right
        self._counted[kind] += 1
        if self._counted[kind] > _MOST_COUNT:
            self._right[kind] /= 2
            self._counted[kind] /= 2

    def chances(self, most: int) -> list[float]:
        if not self._next:
            return []
        chances, chance, run = list[float](), 1.0, self._run
        for _ in range(most):
            kind = min(run.bit_length(), len(_FIRST_SHARES) - 1)
            chance *= self._right[kind] / self._counted[kind]
            if chance < _LEAST_CHANCE:
                break
            chances.append(chance)
            run += 1
        return chances

    def propose(self, n: int) -> list[int]:
        found = list(self._tokens[self._next : self._next + n])
        # A text that repeats itself goes on so.
        period = len(self._tokens) - self._next
        while len(found) < n:
            found.append(found[len(found) - period])
        return found


class Governor:
    """Shares out guesses among the running texts so that most tokens a second are written; none, where that is best.

    It learns what steps of answers take by their rows, and keeps an account of what guesses have cost and gained by
    these times: when they have cost more than a hundredth of the time, no step has any until that is earned.
    """

    def __init__(self) -> None:
        # Rows of the steps that were measured, in order; by rows the logarithm of seconds, as if the machine were as
        # busy as at first, and how often it was measured.
        self._rows: list[int] = []
        self._seconds: dict[int, float] = {}
        self._measured: dict[int, int] = {}
        self._load = 0.0
        # Seconds that guesses cost more than they gained, and steps with guesses since the last one without.
        self._lost = 0.0
        self._since_plain = 0

    def record(self, texts: int, rows: int, written: int, seconds: float) -> None:
        """Learn from a step of `rows` rows that wrote `written` tokens of `texts` answers, and read no prompt."""
        found = log(max(seconds, 1e-9)) - self._load
        if rows not in self._measured:
            # The first step of a kind may be slow for other reasons: what was expected counts for half.
            expected = log(self.cost(rows)) - self._load if self._rows else found
            self._seconds[rows], self._measured[rows] = (found + expected) / 2, 1
            insort(self._rows, rows)
        else:
            n = self._measured[rows] = self._measured[rows] + 1
            known = self._seconds[rows]
            error = max(-_MOST_CHANGE, min(_MOST_CHANGE, found - known))
            self._seconds[rows] = known + error * max(_LEAST_WEIGHT, 1 / (n + 1))
            # Other programs and a longer past slow steps of all rows alike.
            self._load += error * _LOAD_WEIGHT
        self._since_plain = self._since_plain + 1 if rows > texts else 0
        if rows > texts:
            # Another program may have stopped the step: that is not the guesses' fault.
            plain, taken = self.cost(texts), min(seconds, 2 * self.cost(rows))
            self._lost = max(self._lost + taken - plain * written / texts, -_MOST_GAIN * plain)
        if self._lost > 0:
            self._lost = max(0.0, self._lost - _ALLOWANCE * seconds)

    def cost(self, rows: int) -> float:
        """Return the seconds that a step of so many rows would take now: on a line through the nearest measured ones.

        Something must have been measured.
        """
        known = self._rows
        place = bisect(known, rows)
        if place and known[place - 1] == rows:
            return exp(self._seconds[rows] + self._load)
        at = min(max(1, place), len(known) - 1)
        below = known[at - 1]
        low = exp(self._seconds[below] + self._load)
        slope = _ROW_COST * low
        if len(known) > 1:
            slope = (exp(self._seconds[known[at]] + self._load) - low) / (known[at] - below)
        return max(low + slope * (rows - below), low / 2)

    def share(self, chances: Sequence[Sequence[float]], room: int) -> list[int]:
        """Return how many guesses of each text the next step carries, `room` at most in all.

        `chances` are those of each running text (Drafter.chances), empty where it has no guess.
        """
        texts, taken = len(chances), [0] * len(chances)
        if self._measured.get(texts, 0) < _LEAST_MEASURED or self._since_plain >= _STEPS_PER_PLAIN:
            return taken
        plain = self.cost(texts)
        if self._lost > _FIRST_ALLOWANCE * plain:
            return taken
        # The likeliest first; those of one text stay in their order.
        order = sorted((-chance, i) for i, each in enumerate(chances) for chance in each)
        # No more than twice the rows that were measured: what is not known is tried with little.
        room = min(room, len(order), MAX_ROWS - texts, 2 * self._rows[-1] - texts)
        best, best_speed, expected = 0, texts / plain, float(texts)
        for n, (chance, _) in enumerate(order[: max(0, room)], 1):
            expected -= chance
            if (n in _EXTRA_ROWS or n == len(order)) and expected / self.cost(texts + n) > best_speed:
                best, best_speed = n, expected / self.cost(texts + n)
        for _, i in order[:best]:
            taken[i] += 1
        return taken


def check(draft: str) -> str:
    """Return what `draft` names. Raises SeventyError where it is none of CHOICES."""
    if draft not in CHOICES:
        raise SeventyError(f"draft must be one of {', '.join(CHOICES)}, not {draft!r}")
    return draft
