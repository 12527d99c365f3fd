"""Ranges for prices that no source gives: from the same part in another market, or from its neighbours in this one.

Every such row says its formula as source, has "inferred" as confidence and a range, never one figure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from seventy.catalog.cpus import all_cpus
from seventy.catalog.inflation import months
from seventy.catalog.platforms import all_platforms
from seventy.catalog.prices import INFERRED, PriceRow

# USD for one unit, about, 2025-2026; the ranges below are wider than rates moved.
USD = {"USD": 1.0, "CNY": 1 / 7.15, "EUR": 1.15, "GBP": 1.335, "PLN": 0.272, "NOK": 0.098}
# The same used or new part in another market costs between these times as much.
ABROAD = (0.7, 1.7)
# A neighbour of the same family: between so much of the cheapest and so much of the dearest.
FAMILY = (0.7, 1.5)
ALIKE_YEARS = 3
# A platform of the same socket but of another build.
COUSIN = (0.7, 2.5)
# A module of another size, a GB.
OTHER_SIZE = (0.8, 1.4)
# A module of another form or market, a GB.
OTHER_FORM = (0.6, 1.5)
# Sizes worth a range where only others have a price.
SIZES = {("DDR4", "RDIMM"): (8, 16, 32, 64), ("DDR4", "UDIMM"): (8, 16, 32), ("DDR4", "SODIMM"): (8, 16, 32),
         ("DDR5", "UDIMM"): (16, 32, 48), ("DDR5", "SODIMM"): (16, 32, 48), ("DDR5", "RDIMM"): (32, 64, 96),
         ("DDR3", "RDIMM"): (8, 16)}  # fmt: skip
# The DIMM form whose price a GB stands in for one that has none at all.
SAME_CHIPS = {"SODIMM": "UDIMM", "UDIMM": "SODIMM", "RDIMM": "UDIMM"}
_MTS = {"DDR3": 1600, "DDR4": 2400, "DDR5": 4800}

# The least and the most that a piece of a row costs in the book's month.
Bounds = Callable[[PriceRow], tuple[float, float]]


class Market:
    """All prices known by a month, from which the missing prices of one region are inferred."""

    def __init__(self, rows: Iterable[PriceRow], region: str, currency: str, month: str) -> None:
        self.region, self.currency, self.month = region, currency, month
        self._rows = [row for row in rows if row.currency in USD]
        self._known: dict[tuple[str, str], PriceRow | None] = {}

    def infer(self, category: str, item: str) -> PriceRow | None:
        """Infer a price range for a part, or return None if nothing similar has a price anywhere."""
        key = (category, item)
        if key not in self._known:
            ways = (self.abroad, self._family) if category in ("cpu", "platform") else (self.abroad,)
            self._known[key] = next((row for way in ways if (row := way(category, item))), None)
        return self._known[key]

    def _row(self, like: PriceRow, item: str, low: float, high: float, formula: str) -> PriceRow:
        return replace(like, item=item or like.item, price=None, low=low, high=high, currency=self.currency,
                       region=self.region, source=formula, confidence=INFERRED, unit="piece")  # fmt: skip

    def abroad(self, category: str, item: str) -> PriceRow | None:
        """Return the price of the same part in another market, converted; the nearest in time."""
        found = [row for row in self._rows if row.category == category and row.region != self.region
                 and (row.item == item or not item)]  # fmt: skip
        if not found:
            return None
        near = min(found, key=lambda row: abs(months(row.date) - months(self.month)))
        return self._row(near, item, *self._here(near))

    def _here(self, row: PriceRow) -> tuple[float, float, str]:
        """The least and the most a piece of a row costs in this region, and by what formula."""
        low, high = row.bounds
        each = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        formula = f"{each} {row.currency} in {row.region} ({row.date})"
        if row.region == self.region:
            return low, high, formula
        rate, (least, most) = USD[row.currency] / USD[self.currency], ABROAD
        return low * rate * least, high * rate * most, f"{formula} x {rate:.3g}, x {least:g} to {most:g}"

    def _known_parts(self, category: str) -> dict[str, PriceRow]:
        """The parts of a category with a price, the nearest in time of each; this region's before those abroad."""
        found: dict[str, PriceRow] = {}
        at = months(self.month)
        for row in sorted(self._rows, key=lambda row: (row.region != self.region, abs(months(row.date) - at))):
            if row.category == category:
                found.setdefault(row.item, row)
        return found

    def _family(self, category: str, item: str) -> PriceRow | None:
        known = self._known_parts(category)
        near, (least, most) = self._cpus(item) if category == "cpu" else self._platforms(item, known)
        rows = [known[name] for name in near if name in known]
        if not rows:
            return None
        cheap, dear = (pick(rows, key=lambda row: self._here(row)[side]) for side, pick in ((0, min), (1, max)))
        low, _, from_cheap = self._here(cheap)
        _, high, from_dear = self._here(dear)
        formula = f"{cheap.item} ({from_cheap}) x {least:g} to {dear.item} ({from_dear}) x {most:g}"
        return self._row(cheap, item, low * least, high * most, formula)

    def _cpus(self, item: str) -> tuple[Sequence[str], tuple[float, float]]:
        """CPUs of the same socket and generation with about as many cores; all of the generation where none is."""
        cpu = next((cpu for cpu in all_cpus() if cpu.name == item), None)
        if cpu is None:
            return (), FAMILY
        family = [other for other in all_cpus() if other.socket == cpu.socket and other.microarch == cpu.microarch]
        known = self._known_parts("cpu")
        close = [other.name for other in family if other.name in known and 0.6 <= other.cores / cpu.cores <= 1.6]
        if close:
            return close, FAMILY
        # Of about the same years, size and market.
        alike = [other.name for other in all_cpus() if other.name in known and other.server_memory == cpu.server_memory
                 and other.mem_type == cpu.mem_type and abs(other.year - cpu.year) <= ALIKE_YEARS
                 and 0.6 <= other.cores / cpu.cores <= 1.6]  # fmt: skip
        return alike, FAMILY

    def _platforms(self, item: str, known: Mapping[str, PriceRow]) -> tuple[Sequence[str], tuple[float, float]]:
        """Platforms of the same socket, count of sockets and kind; else such as share two of these."""
        body = next((body for body in all_platforms() if body.name == item), None)
        if body is None or body.cpu:
            return (), FAMILY
        same = [other for other in all_platforms() if other.name in known and other.name != item
                and other.mem_type == body.mem_type and not other.cpu]  # fmt: skip
        for factors, test in (
            (FAMILY, lambda o: (o.socket, o.sockets, o.kind) == (body.socket, body.sockets, body.kind)),
            (COUSIN, lambda o: (o.socket, o.kind) == (body.socket, body.kind)),
            (COUSIN, lambda o: (o.sockets, o.kind) == (body.sockets, body.kind) and not body.rack),
            (COUSIN, lambda o: (o.socket, o.sockets) == (body.socket, body.sockets)),
        ):
            near = [other.name for other in same if test(other)]
            if near:
                return near, factors
        return (), COUSIN

    def other_sizes(
        self, mem_type: str, form: str, known: Mapping[tuple[float, int], PriceRow],
        bounds: Bounds,
    ) -> dict[tuple[float, int], PriceRow]:  # fmt: skip
        """Infer price ranges for the module sizes without a price, from the price per GB of the other sizes."""
        sized = [(gb, row, 1.0) for (gb, _), row in known.items()]
        widen, standing = OTHER_SIZE, form
        if not sized:
            sized, standing = self._other_form(mem_type, form)
            widen = OTHER_FORM
        have = {gb for gb, _ in known}
        found: dict[tuple[float, int], PriceRow] = {}
        for gb in SIZES.get((mem_type, form), ()):
            if not sized or gb in have:
                continue
            near_gb, near, rate = min(sized, key=lambda one: (max(one[0] / gb, gb / one[0]), one[1].each))
            low, high = (bound * rate / near_gb for bound in bounds(near))
            each = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            formula = (f"{each} {self.currency} a GB of {near_gb:g} GB {standing} ({near.date}, "
                       f"carried), x {widen[0]:g} to {widen[1]:g}")  # fmt: skip
            row = self._row(near, f"{mem_type} {form}", gb * low * widen[0], gb * high * widen[1], formula)
            # What was carried already is not carried again.
            found[(float(gb), near.speed_mts or _MTS[mem_type])] = replace(
                row, dimm_gb=float(gb), dimm_form=form, unit="piece", date=self.month
            )
        return found

    def _other_form(self, mem_type: str, form: str) -> tuple[list[tuple[float, PriceRow, float]], str]:
        """A module of the kind in another form of this region, else abroad; GB, row, rate of exchange."""
        at = months(self.month)
        for wanted, here in ((SAME_CHIPS.get(form, form), True), (form, False), (SAME_CHIPS.get(form, form), False)):
            rows = [row for row in self._rows if row.category == "ram" and row.mem_type == mem_type and row.dimm_gb
                    and wanted in row.dimm_form.split("|") and (row.region == self.region) == here]  # fmt: skip
            if rows:
                near = min(rows, key=lambda row: abs(months(row.date) - at))
                assert near.dimm_gb is not None
                rate = USD[near.currency] / USD[self.currency]
                words = wanted if here else f"{wanted} in {near.region} ({near.currency} x {rate:.3g})"
                return [(near.dimm_gb, near, rate)], words
        return [], form
