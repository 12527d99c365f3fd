"""Prices: what a part cost, where, when, and who says so; and one line of a bill."""

from dataclasses import dataclass
from functools import cache

from seventy.catalog.inflation import UNCHANGED, Factor, months
from seventy.catalog.rows import load
from seventy.language import t

__all__ = ["Part", "PriceRow", "all_prices", "months"]

CATEGORIES = ("platform", "cpu", "ram", "ssd", "gpu", "case", "psu", "cooler", "electricity", "bundle")
# The confidence of a price that no source gives: it was inferred, and its source is the formula.
INFERRED = "inferred"


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A price of an item on one day; `low` and `high` if only a range is known."""

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
            raise ValueError(t(
                "{item}: category {category!r} is none of {categories}",
                item=self.item, category=self.category, categories=", ".join(CATEGORIES),
            ))
        if self.price is None and (self.low is None or self.high is None):
            raise ValueError(t("{item}: neither a price nor a range", item=self.item))
        if self.price is not None and self.price <= 0:
            raise ValueError(t("{item}: price {price} must be more than zero", item=self.item, price=self.price))
        if self.low is not None and self.high is not None and not 0 < self.low <= self.high:
            raise ValueError(t("{item}: range {low} - {high}", item=self.item, low=self.low, high=self.high))
        if not self.source or not self.date[:4].isdigit() or not self.currency or not self.region:
            raise ValueError(t("{item}: a price needs currency, region, date and source", item=self.item))

    @property
    def each(self) -> float:
        """Price of one piece: kits divided, ranges at their geometric middle."""
        return self.whole / int(self.unit.removeprefix("kit of ")) if self.unit.startswith("kit of ") else self.whole

    @property
    def whole(self) -> float:
        """The price of what is sold: for a kit, the price of all its pieces."""
        return self.price if self.price is not None else ((self.low or 0) * (self.high or 0)) ** 0.5

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most its source says of one piece."""
        share = self.each / self.whole
        return (self.low or self.whole) * share, (self.high or self.whole) * share

    @property
    def ranged(self) -> bool:
        return self.price is None

    @property
    def inferred(self) -> bool:
        """Whether no source gives it for this part, region and kind."""
        return self.confidence == INFERRED

    @property
    def kind(self) -> str:
        """The price index it follows: "DDR4 RDIMM", "SSD", or blank for none."""
        return f"{self.mem_type} {self.dimm_form.split('|')[0]}" if self.category == "ram" else (
            "SSD" if self.category == "ssd" else "")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """A line of a build's bill: how many of which part, and its price if one is known.

    `factor` converts the price to the book's month.
    """

    label: str
    count: int
    price: PriceRow | None
    stale_months: int = 0
    factor: Factor = UNCHANGED

    @property
    def each(self) -> float | None:
        """The price of one piece in the book's month."""
        return None if self.price is None else self.price.each * self.factor.mid

    @property
    def total(self) -> float | None:
        return None if self.price is None else self.count * self.price.each * self.factor.mid

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most of all its pieces, zeros where no price is known."""
        row = self.price
        if row is None:
            return 0.0, 0.0
        low, high = row.bounds if row.ranged else (row.each, row.each)
        return self.count * low * self.factor.low, self.count * high * self.factor.high

    @property
    def carried(self) -> bool:
        """Whether the price was converted from another month."""
        return self.factor != UNCHANGED

    @property
    def certain(self) -> bool:
        """Whether a source gives one price for it, of about this month."""
        return self.price is not None and not self.price.ranged and not self.carried


@cache
def all_prices() -> tuple[PriceRow, ...]:
    return load("prices.csv", PriceRow)
