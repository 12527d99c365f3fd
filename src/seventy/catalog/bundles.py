"""Whole machines that are sold with CPU and memory, as dated offers."""

from dataclasses import dataclass
from functools import cache

from seventy.catalog.prices import PriceRow
from seventy.catalog.rows import load


@dataclass(frozen=True, slots=True)
class Bundle:
    """A platform of the catalogue with CPUs, `modules` of `module_gb` each and a drive of `ssd_gb` (0: none)."""

    platform: str
    cpu: str
    sockets: int
    modules: int
    module_gb: float
    speed_mts: int | None
    ssd_gb: float
    condition: str
    price: float | None
    low: float | None
    high: float | None
    currency: str
    date: str
    region: str
    source: str
    confidence: str
    notes: str

    @property
    def row(self) -> PriceRow:
        """Its price as one of prices.csv."""
        return PriceRow(
            "bundle", self.platform, "", "", None, None, None, "piece", self.condition, self.price, self.low, self.high,
            self.currency, self.date, self.region, self.source, self.confidence, self.notes,
        )  # fmt: skip


@cache
def all_bundles() -> tuple[Bundle, ...]:
    return load("bundles.csv", Bundle)
