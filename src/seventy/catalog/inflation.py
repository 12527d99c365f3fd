"""What memory and drives cost over time, by kind: an index with range and sources, to carry old prices to a month."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from seventy.catalog.rows import load
from seventy.language import t


def months(date: str) -> int:
    """Count the months since year 0 of a date: "2025-02", or "2025" (taken as its middle)."""
    year, _, month = date.partition("-")
    return int(year) * 12 + (int(month[:2]) - 1 if month else 6)


@dataclass(frozen=True, slots=True)
class Index:
    """A price index of a kind of part relative to its first month of 2025; `low` and `high` where sources differ.

    `kind` is "DDR4 RDIMM", "DDR3" (all forms) or "SSD"; `region` is blank if one series serves all.
    """

    kind: str
    region: str
    month: str
    index: float
    low: float
    high: float
    source: str
    notes: str

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.index <= self.high:
            raise ValueError(t(
                "{kind} {month}: index {low}, {index}, {high}",
                kind=self.kind, month=self.month, low=self.low, index=self.index, high=self.high,
            ))
        if not self.source:
            raise ValueError(t("{kind} {month}: an index needs its source", kind=self.kind, month=self.month))


@dataclass(frozen=True, slots=True)
class Factor:
    """The factor that converts an old price to another month; 1 if no change is known."""

    mid: float = 1.0
    low: float = 1.0
    high: float = 1.0


UNCHANGED = Factor()


@cache
def _series(kind: str, region: str) -> tuple[Index, ...]:
    rows = load("inflation.csv", Index)
    for wanted in (kind, kind.split(" ")[0]):
        own = [row for row in rows if row.kind == wanted and row.region in ("", region)]
        # A region without a series of its own has the one that is known.
        found = own or [row for row in rows if row.kind == wanted and row.region == "US"]
        if found:
            return tuple(sorted(found, key=lambda row: months(row.month)))
    return ()


def last_month() -> str:
    """Return the last month of the price index."""
    return max((row.month for row in load("inflation.csv", Index)), key=months)


def _at(series: Sequence[Index], month: int, pick: str) -> float:
    """The index at a month, by equal steps of its logarithm; before the first and after the last row theirs."""
    points = [(months(row.month), math.log(getattr(row, pick))) for row in series]
    if month <= points[0][0]:
        return math.exp(points[0][1])
    for (a, low), (b, high) in pairwise(points):
        if month <= b:
            return math.exp(low + (high - low) * (month - a) / (b - a))
    return math.exp(points[-1][1])


def factor(kind: str, region: str, then: str, now: str) -> Factor:
    """Return the factor that converts a price of `kind` from month `then` to a later month `now`."""
    series = _series("DDR4 RDIMM" if kind == "DDR4 LRDIMM" else kind, region)
    if not series or months(now) <= months(then):
        return UNCHANGED
    base = _at(series, months(then), "index")
    if math.isclose(base, _at(series, months(now), "index")):
        # A price of this level already; the index's range is of the level, not of a change.
        return UNCHANGED
    low, mid, high = (_at(series, months(now), pick) / base for pick in ("low", "index", "high"))
    return Factor(mid, min(mid, low), max(mid, high))
