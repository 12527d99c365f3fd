"""Prices as dated, regional snapshots: what a part cost, where, when, and who says so.

Regions and currencies are never mixed: a book holds one region's prices in one currency around one month.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from seventy.catalog.rows import load
from seventy.errors import SeventyError

CATEGORIES = ("platform", "cpu", "ram", "ssd", "gpu", "case", "psu", "cooler", "electricity", "bundle")
# The snapshots the catalogue is good for: region, currency, month, and what it is made of.
SNAPSHOTS = {"CN": ("CNY", "2025-02"), "US": ("USD", "2026-09")}
# A price later than this after the book's month is not used; one older than that is used and called stale.
LATER_MONTHS, STALE_MONTHS = 6, 9


def months(date: str) -> int:
    """Months since year 0 of "2025-02" or "2025" (its middle)."""
    year, _, month = date.partition("-")
    return int(year) * 12 + (int(month[:2]) - 1 if month else 6)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price of one thing on one day; `low` and `high` where only a range is known."""

    category: str
    item: str
    mem_type: str
    dimm_form: str
    dimm_gb: float | None
    speed_mts: int | None
    capacity_gb: float | None
    unit: str
    condition: str
    price: float | None
    low: float | None
    high: float | None
    currency: str
    date: str
    region: str
    source: str
    confidence: str
    notes: str = ""

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise ValueError(f"{self.item}: category {self.category!r} is none of {', '.join(CATEGORIES)}")
        if self.price is None and (self.low is None or self.high is None):
            raise ValueError(f"{self.item}: neither a price nor a range")
        if self.price is not None and self.price <= 0:
            raise ValueError(f"{self.item}: price {self.price} must be more than zero")
        if self.low is not None and self.high is not None and not 0 < self.low <= self.high:
            raise ValueError(f"{self.item}: range {self.low} - {self.high}")
        if not self.source or not self.date[:4].isdigit() or not self.currency or not self.region:
            raise ValueError(f"{self.item}: a price needs currency, region, date and source")

    @property
    def each(self) -> float:
        """Price of one piece: kits divided, ranges at their geometric middle."""
        whole = self.price if self.price is not None else ((self.low or 0) * (self.high or 0)) ** 0.5
        return whole / int(self.unit.removeprefix("kit of ")) if self.unit.startswith("kit of ") else whole

    @property
    def ranged(self) -> bool:
        return self.price is None


@dataclass(frozen=True, slots=True)
class Part:
    """One line of a build's bill: how many of what, at what price, or at none that is known."""

    label: str
    count: int
    price: PriceRow | None
    stale_months: int = 0
    factor: float = 1.0

    @property
    def total(self) -> float | None:
        return None if self.price is None else self.count * self.price.each * self.factor


@cache
def all_prices() -> tuple[PriceRow, ...]:
    return load("prices.csv", PriceRow)


def _key(row: PriceRow) -> tuple[str, str]:
    """CPUs and platforms are looked up by name, everything else by what it can do."""
    return row.category, row.item if row.category in ("cpu", "platform") else ""


class PriceBook:
    """The prices of one region around one month, a user's own before the catalogue's."""

    def __init__(
        self, region: str, month: str | None = None, ram_factor: float = 1.0,
        own: Sequence[PriceRow] = (), rows: Iterable[PriceRow] | None = None,
    ) -> None:  # fmt: skip
        if region not in SNAPSHOTS and not any(row.region == region for row in own):
            known = ", ".join(SNAPSHOTS)
            raise SeventyError(f"There are no prices for region {region!r}; known are {known}, or bring your own "
                               "with --prices FILE.")  # fmt: skip
        if ram_factor <= 0:
            raise SeventyError(f"--ram-factor {ram_factor:g} must be more than zero.")
        self.region = region
        own_here = [row for row in own if row.region == region]
        self.currency, newest = SNAPSHOTS.get(region) or (own_here[0].currency, own_here[0].date)
        self.month = month or newest
        if len(self.month) != 7 or not (self.month[:4] + self.month[5:]).isdigit():
            raise SeventyError(f"--date {self.month!r} is not a month; write it as 2025-02.")
        self.ram_factor = ram_factor
        at = months(self.month)
        source = list(rows if rows is not None else all_prices())
        known_rows = [row for row in source if row.region == region and row.currency == self.currency]
        usable = [row for row in known_rows if months(row.date) <= at + LATER_MONTHS]
        if not usable and not own_here:
            raise SeventyError(f"No price of region {region} is as old as {self.month}; the oldest is of "
                               f"{min(row.date for row in known_rows)}.")  # fmt: skip
        self._rows: dict[tuple[str, str], list[PriceRow]] = {}
        for row in sorted(usable, key=lambda row: abs(months(row.date) - at)):
            self._rows.setdefault(_key(row), []).append(row)
        self._own: dict[tuple[str, str], list[PriceRow]] = {}
        for row in own_here:
            self._own.setdefault(_key(row), []).append(row)

    def _find(self, category: str, item: str = "") -> list[PriceRow]:
        return self._own.get((category, item), []) + self._rows.get((category, item), [])

    def stale(self, row: PriceRow | None) -> int:
        """Months the row is older than the book, 0 where it is of its time."""
        if row is None:
            return 0
        age = months(self.month) - months(row.date)
        return age if age > STALE_MONTHS else 0

    def part(self, category: str, item: str, count: int = 1) -> Part:
        found = self._find(category, item)
        row = found[0] if found else None
        return Part(item, count, row, self.stale(row))

    def modules(self, mem_type: str, form: str) -> list[tuple[float, int, PriceRow]]:
        """The memory modules with a price: GB, MT/s, row; one row per size and speed, the nearest in time."""
        found: dict[tuple[float, int], PriceRow] = {}
        for row in self._find("ram"):
            if row.mem_type != mem_type or form not in row.dimm_form.split("|") or row.dimm_gb is None:
                continue
            speed = row.speed_mts or USUAL_MTS[mem_type]
            found.setdefault((row.dimm_gb, speed), row)
        # Memory prices move too much for an old one to stand beside a new one of the same size, or of any size where
        # the new ones cost more than twice as much a GB.
        fresh = {gb for (gb, _), row in found.items() if not self.stale(row)}
        per_gb = sorted(row.each / gb for (gb, _), row in found.items() if not self.stale(row))
        least = per_gb[len(per_gb) // 2] / 2 if per_gb else 0.0
        return [
            (gb, mts, row) for (gb, mts), row in found.items()
            if not self.stale(row) or (gb not in fresh and row.each / gb >= least)
        ]  # fmt: skip

    def ssd(self, needed_gb: float) -> Part:
        """The cheapest drive that holds this much."""
        fitting = [row for row in self._find("ssd") if (row.capacity_gb or 0) >= needed_gb]
        if not fitting:
            return Part(f"SSD of {needed_gb:.0f} GB", 1, None)
        fresh = [row for row in fitting if not self.stale(row)] or fitting
        # A user's own drive comes before any other.
        mine = [row for row in self._own.get(("ssd", ""), []) if row in fitting]
        row = (mine or sorted(fresh, key=lambda row: row.each))[0]
        return Part(row.item, 1, row, self.stale(row))

    def electricity(self) -> PriceRow | None:
        """The region's price of a kWh."""
        found = self._find("electricity")
        return found[0] if found else None

    def other(self, category: str) -> Part:
        """Case, power supply or GPU: the nearest in time of its category."""
        found = self._find(category)
        row = found[0] if found else None
        return Part(row.item if row else category, 1, row, self.stale(row))

    def ram_part(self, label: str, count: int, row: PriceRow | None) -> Part:
        return Part(label, count, row, self.stale(row), self.ram_factor)


# Speed of a module whose row says none.
USUAL_MTS = {"DDR3": 1600, "DDR4": 3200, "DDR5": 5600, "LPDDR5": 6400, "LPDDR5X": 7500}
