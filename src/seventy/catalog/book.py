"""A book of prices: one region and currency, one month; older prices are carried to it, missing ones inferred, marked.

A price that a source gives for this region always goes first, a user's own before it. Where none does, the range of a
neighbour stands in (catalog/inferred.py), and its source is the formula.
"""

import datetime
import re
from collections.abc import Iterable, Sequence

from seventy.catalog.inferred import USD, Market
from seventy.catalog.inflation import UNCHANGED, Factor, factor, months
from seventy.catalog.prices import Part, PriceRow, all_prices
from seventy.errors import SeventyError

# Regions with prices of enough parts: currency, and the month that most of its rows are of.
REGIONS = {"CN": ("CNY", "2025-02"), "US": ("USD", "2026-09")}
# A price later than this after the book's month is not used; one older than that is called stale.
LATER_MONTHS, STALE_MONTHS = 6, 9
# Memory and drives this much older than the book are carried to its month.
CARRY_MONTHS = 3
# Speed of a module whose row says none.
USUAL_MTS = {"DDR3": 1600, "DDR4": 3200, "DDR5": 5600, "LPDDR5": 6400, "LPDDR5X": 7500}


def this_month() -> str:
    return f"{datetime.date.today():%Y-%m}"


def _key(row: PriceRow) -> tuple[str, str]:
    """CPUs and platforms are looked up by name, everything else by what it can do."""
    return row.category, row.item if row.category in ("cpu", "platform", "gpu") else ""


def _by_part(rows: Iterable[PriceRow]) -> dict[tuple[str, str], list[PriceRow]]:
    """The rows by what they are looked up by, in their order."""
    found: dict[tuple[str, str], list[PriceRow]] = {}
    for row in rows:
        found.setdefault(_key(row), []).append(row)
    return found


def _check(region: str, month: str | None, ram_factor: float, own_here: Sequence[PriceRow]) -> None:
    """Raise SeventyError where there are no prices for the region, or the month or the factor is none."""
    if region not in REGIONS and not own_here:
        known = ", ".join(REGIONS)
        raise SeventyError(
            "There are no prices for region {region!r}; known are {known}, or bring your own with --prices FILE.",
            region=region, known=known,
        )  # fmt: skip
    if ram_factor <= 0:
        raise SeventyError("--ram-factor {ram_factor:g} must be more than zero.", ram_factor=ram_factor)
    if month and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise SeventyError("--date {month!r} is not a month; write it as 2025-02.", month=month)


def _too_old(region: str, month: str) -> SeventyError:
    oldest = min(row.date for row in all_prices() if row.region == region)
    return SeventyError(
        "No price of region {region} is as old as {month}; the oldest is of {oldest}.",
        region=region, month=month, oldest=oldest,
    )


class PriceBook:
    """The prices of one region for one month (`month`, default: this one), with a user's own prices first.

    `ram_factor` multiplies memory prices and replaces the catalogue's price index. With `infer=False`, parts without a
    price in this region get none.
    """

    def __init__(
        self, region: str, month: str | None = None, ram_factor: float = 1.0,
        own: Sequence[PriceRow] = (), rows: Iterable[PriceRow] | None = None, infer: bool = True,
    ) -> None:  # fmt: skip
        own_here = [row for row in own if row.region == region]
        _check(region, month, ram_factor, own_here)
        self.region = region
        self.currency = REGIONS[region][0] if region in REGIONS else own_here[0].currency
        self.month = month or this_month()
        self.ram_factor = ram_factor
        every = tuple(rows) if rows is not None else all_prices()
        here = [row for row in every if row.region == region and row.currency == self.currency]
        here.sort(key=lambda row: abs(months(row.date) - months(self.month)))
        usable = [row for row in here if self._is_known(row)]
        if not usable and not own_here:
            raise _too_old(region, self.month)
        self._rows, self._own = _by_part(usable), _by_part(own_here)
        # A kWh costs about as much in other years; nothing else is taken from so far away.
        self._electricity = [row for row in here if row.category == "electricity"]
        # Nothing can be inferred in a currency whose rate is not known.
        known = [row for row in every if self._is_known(row)]
        self._market = Market(known, region, self.currency, self.month) if infer and self.currency in USD else None

    def _is_known(self, row: PriceRow) -> bool:
        """Whether the row is not too much later than the book's month."""
        return months(row.date) <= months(self.month) + LATER_MONTHS

    def _find(self, category: str, item: str = "") -> list[PriceRow]:
        return self._own.get((category, item), []) + self._rows.get((category, item), [])

    def stale(self, row: PriceRow | None) -> int:
        """Return by how many months the row is out of date, or 0 if it is current."""
        if row is None:
            return 0
        age = months(self.month) - months(row.date)
        return age if age > STALE_MONTHS else 0

    def factor(self, row: PriceRow | None) -> Factor:
        """Return the factor that converts a price to the book's month."""
        # What was inferred is of the book's month and has its factor already.
        if row is None or row.inferred:
            return UNCHANGED
        if row.category == "ram" and self.ram_factor != 1.0:
            return Factor(self.ram_factor, self.ram_factor, self.ram_factor)
        if not row.kind or row.confidence == "own" or months(self.month) - months(row.date) < CARRY_MONTHS:
            return UNCHANGED
        return factor(row.kind, self.region, row.date, self.month)

    def line(self, label: str, count: int, row: PriceRow | None) -> Part:
        """Make a line of a bill, with the row's price converted to the book's month."""
        return Part(label, count, row, self.stale(row), self.factor(row))

    def each(self, row: PriceRow) -> float:
        """Return the price of one piece, converted to the book's month."""
        return row.each * self.factor(row).mid

    def abroad(self, category: str, item: str) -> bool:
        """Return whether another market has a price of this very part."""
        return self._market is not None and self._market.abroad(category, item) is not None

    def part(self, category: str, item: str, count: int = 1) -> Part:
        found = self._find(category, item)
        row = found[0] if found else self._market.infer(category, item) if self._market else None
        return self.line(item, count, row)

    def modules(self, mem_type: str, form: str) -> list[tuple[float, int, PriceRow]]:
        """List the memory modules with a price: GB, MT/s, row; one row per size and speed, the nearest in time.

        An out-of-date price is left out if the same size has a current one. Sizes without a price get a range, from the
        price per GB of other sizes of their kind.
        """
        forms = ("RDIMM", "LRDIMM") if form == "RDIMM" else (form,)
        found: dict[tuple[float, int], PriceRow] = {}
        for row in self._find("ram"):
            if row.mem_type != mem_type or row.dimm_gb is None or not set(forms) & set(row.dimm_form.split("|")):
                continue
            found.setdefault((row.dimm_gb, row.speed_mts or USUAL_MTS[mem_type]), row)
        fresh = {gb for (gb, _), row in found.items() if not self.stale(row)}
        kept = {key: row for key, row in found.items() if not self.stale(row) or key[0] not in fresh}
        if self._market is not None:
            kept |= self._market.other_sizes(mem_type, form, kept, lambda row: self.line("", 1, row).bounds)
        return [(gb, mts, row) for (gb, mts), row in kept.items()]

    def ssd(self, needed_gb: float) -> Part:
        """Return the cheapest drive that holds this much."""
        fitting = [row for row in self._find("ssd") if (row.capacity_gb or 0) >= needed_gb]
        if not fitting:
            return Part(f"SSD of {needed_gb:.0f} GB", 1, None)
        fresh = [row for row in fitting if not self.stale(row)] or fitting
        # A user's own drive comes before any other.
        mine = [row for row in self._own.get(("ssd", ""), []) if row in fitting]
        row = (mine or sorted(fresh, key=self.each))[0]
        return self.line(row.item, 1, row)

    def electricity(self) -> PriceRow | None:
        """Return the region's price of a kWh."""
        found = [*self._find("electricity"), *self._electricity]
        return found[0] if found else None

    def other(self, category: str) -> Part:
        """Return the price of a case, power supply or cooler: that of its category nearest in time."""
        found = self._find(category)
        row = found[0] if found else self._market.infer(category, "") if self._market else None
        return self.line(row.item if row else category, 1, row)

