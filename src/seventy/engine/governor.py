"""How many guesses a step should carry: as many as write most tokens a second, none where that is best.

Guesses are rows of a step, and those of a draft model take passes of it besides. The governor learns what steps take by
their rows on this machine, for this model and under this load, and is told how likely guesses are to be right. It knows
neither models nor texts.
"""

from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

# The most guesses of one text in a step, and the most rows of a step with guesses.
MAX_DRAFT, MAX_ROWS = 15, 48
# Until steps of more rows were measured: how much of a step of one row each further row takes.
_ROW_COST = 0.1
# How many guesses a step may have: few different numbers, so that each is measured often.
_EXTRA_ROWS = frozenset((1, 2, 3, 5, 7, 11, 15, 23, 31, 47))
# How many steps without guesses must be measured first, and after how many with guesses the next one is.
_LEAST_MEASURED, _STEPS_PER_PLAIN = 3, 64
# What guesses may cost: this share of the time, of which this is kept for reading where a draft model has not read.
# What guesses saved counts for at most so many steps.
_ALLOWANCE, _FOR_READING, _MOST_SAVED = 0.012, 0.004, 4.0
# Looking for guesses takes no more than this share of a step.
_MOST_LOOKING = 0.02
# The least weight of a new measurement, its weight for the load, and how far off it may be (logarithms).
_LEAST_WEIGHT, _LOAD_WEIGHT, _MOST_CHANGE = 1 / 16, 1 / 4, 0.5


@dataclass(frozen=True, slots=True)
class Offer:
    """Guesses that a step may carry for a text: how likely the first is right, the first two, and so on.

    `passes` says that each of them takes a pass of a draft model, which all texts of the step share.
    """

    chances: Sequence[float] = ()
    passes: bool = False


class Governor:
    """Shares out guesses among the running texts so that most tokens a second are written.

    It keeps an account: steps put 1.2 % of their time into it, divided by how many texts fill them anyway, and those
    with guesses what these saved; looking for guesses is paid from it. A step may have no more guesses than the account
    pays for if all of them are wrong. So whatever the text, guesses cost at most 1.2 % of its time, as far as steps
    take what was measured. A draft model has to read a text before it guesses: for that and its first guesses counts
    what it saved in other texts, too, four steps at most.
    """

    def __init__(self) -> None:
        # Rows of the steps that were measured, in order; by rows the logarithm of seconds, as if the machine were as
        # busy as at first, and how often it was measured.
        self._rows: list[int] = []
        self._seconds: dict[int, float] = {}
        self._measured: dict[int, int] = {}
        self._load = 0.0
        # Seconds that guesses may cost; seconds that reading texts with a draft model may cost; what the draft model
        # saved, in whatever text; steps with guesses since the last one without.
        self.account = self._reading = self._earned = 0.0
        self._since_plain = 0

    def begin(self) -> None:
        """Reset what earlier texts saved and cost, except for a draft model. Called when nothing is running."""
        self.account = self._reading = 0.0

    def record(
        self, texts: int, rows: int, written: int, seconds: float, drafting: float = 0.0, passes: bool = False
    ) -> float:
        """Learn from a step of `rows` rows that wrote `written` tokens of `texts` answers, and read no prompt.

        `drafting` are seconds that its guesses took before it, in passes of a draft model where `passes` says so.
        Returns what a step without guesses would have taken.
        """
        # Before this step is learned from: what was slow because of its rows would count as load.
        before = self.cost(texts) if self._rows else seconds
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
        plain = self.cost(texts)
        if rows > texts or drafting:
            # Another program may have stopped the step: that is not the guesses' fault.
            saved = before * written / texts - min(seconds, 2 * self.cost(rows)) - drafting
            self.account += saved
            if passes:
                self._earned = min(max(0.0, self._earned + saved), _MOST_SAVED * plain)
        self.account = min(self.account + _ALLOWANCE * seconds / texts, _MOST_SAVED * plain)
        return plain

    def pay_looking(self, seconds: float, texts: int) -> None:
        """Take what it took to look for guesses; another program may have stopped that, which is not their fault."""
        self.account -= min(seconds, _MOST_LOOKING * self.cost(texts))

    def keep_for_reading(self, seconds: float) -> None:
        """Save part of what a step of `seconds` earns, so that the draft model can read the texts it has not read."""
        kept = _FOR_READING * seconds
        self._reading, self.account = self._reading + kept, self.account - kept

    def record_prompt(self, seconds: float) -> None:
        """Learn that a step read prompts: so much longer may it take to read them with a draft model, too."""
        self._reading += _ALLOWANCE * seconds

    @property
    def for_reading(self) -> float:
        """Seconds that a draft model may take to read a text that it has not read."""
        return self._reading + max(0.0, self._credit)

    @property
    def _credit(self) -> float:
        """Seconds that guesses of a draft model may cost."""
        return max(self.account, self._earned)

    def pay_reading(self, seconds: float) -> None:
        """Take what reading a text with a draft model took."""
        owed = max(0.0, seconds - self._reading)
        self._reading -= seconds - owed
        self.account, self._earned = self.account - owed, max(0.0, self._earned - owed)

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

    def tokens_of(self, seconds: float, texts: int) -> float:
        """Return how many tokens steps without guesses would write for this many texts in these seconds."""
        return texts * seconds / self.cost(texts)

    def costs(self) -> list[tuple[int, float]]:
        """Return the seconds of steps by the rows that were measured."""
        return [(rows, self.cost(rows)) for rows in self._rows]

    def ready(self, texts: int) -> bool:
        """Return whether the next step of this many texts may carry guesses at all."""
        if self._measured.get(texts, 0) < _LEAST_MEASURED or self._since_plain >= _STEPS_PER_PLAIN:
            return False
        return self._credit > max(0.0, self.cost(texts + 1) - self.cost(texts))

    def share(self, offers: Sequence[Offer], room: int, pass_seconds: float = 0.0) -> list[int]:
        """Return how many guesses of each text the next step carries, `room` at most in all.

        There is an offer of each running text. A pass of the draft model for them takes `pass_seconds`.
        """
        texts, taken = len(offers), [0] * len(offers)
        if not self.ready(texts):
            return taken
        best_speed, best = texts / self.cost(texts), list[tuple[float, int]]()
        deepest = max((len(offer.chances) for offer in offers if offer.passes), default=0)
        for passes in range(deepest + 1):
            speed, chosen = self._fill(offers, room, passes, passes * pass_seconds)
            if speed > best_speed:
                best_speed, best = speed, chosen
        for _, i in best:
            taken[i] += 1
        return taken

    def _fill(
        self, offers: Sequence[Offer], room: int, passes: int, seconds: float
    ) -> tuple[float, list[tuple[float, int]]]:
        """Return the tokens a second with the best guesses after so many passes, and which guesses these are."""
        texts = len(offers)
        plain, credit = self.cost(texts), self._credit if passes else self.account
        # The likeliest first; those of one text stay in their order.
        order = sorted(
            (-chance, i)
            for i, offer in enumerate(offers)
            for chance in (offer.chances[:passes] if offer.passes else offer.chances)
        )
        # No more than twice the rows that were measured: what is not known is tried with little.
        room = min(room, len(order), MAX_ROWS - texts, 2 * self._rows[-1] - texts)
        best, best_speed, expected = 0, 0.0, float(texts)
        for n, (chance, _) in enumerate(order[: max(0, room)], 1):
            expected -= chance
            if n not in _EXTRA_ROWS and n != len(order):
                continue
            cost = self.cost(texts + n) + seconds
            if cost - plain > credit:
                break
            if expected / cost > best_speed:
                best, best_speed = n, expected / cost
        return best_speed, order[:best]
