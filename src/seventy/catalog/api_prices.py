"""What the same models cost at API providers, per million tokens."""

from dataclasses import dataclass
from functools import cache

from seventy.catalog.models import find_model
from seventy.catalog.names import of_title
from seventy.catalog.rows import load
from seventy.errors import SeventyError
from seventy.language import t


@dataclass(frozen=True, slots=True)
class ApiPrice:
    model: str
    provider: str
    input_per_million: float
    output_per_million: float
    currency: str
    date: str
    source: str
    confidence: str
    notes: str = ""

    def __post_init__(self) -> None:
        if self.input_per_million < 0 or self.output_per_million <= 0:
            raise ValueError(t(
                "{model} at {provider}: prices must be more than zero",
                model=self.model, provider=self.provider,
            ))
        if not self.source or not self.date:
            raise ValueError(t(
                "{model} at {provider}: a price needs source and date",
                model=self.model, provider=self.provider,
            ))


@cache
def all_api_prices() -> tuple[ApiPrice, ...]:
    return load("api_prices.csv", ApiPrice)


def api_prices_of(model_name: str) -> list[ApiPrice]:
    """Return the providers of a model of the catalogue, the cheapest output first."""
    known = of_title(model_name)
    wanted, found = known.model if known else model_name, []
    for row in all_api_prices():
        try:
            name = find_model("deepseek-r1" if row.model == "DeepSeek-R1" else row.model).name
        except SeventyError:
            continue
        if name == wanted:
            found.append(row)
    return sorted(found, key=lambda row: row.output_per_million)
