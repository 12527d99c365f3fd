"""The article this project grew from, as data: its builds and its CPU ranking."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class ArticleBuild:
    """A machine of the article; `memory` is "modules x GB @ MT/s", the price is in CNY of February 2025."""

    name: str
    platform: str
    cpu: str
    sockets: int
    memory: str
    total_cny: float


@dataclass(frozen=True, slots=True)
class Article:
    source: str
    date: str
    model: str
    quant: str
    ordered_cny: float
    builds: tuple[ArticleBuild, ...]
    ranking: tuple[tuple[str, int, float], ...]


@cache
def the_article() -> Article:
    text = (files("seventy.catalog") / "data" / "article.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    return Article(
        data["source"], data["date"], data["model"], data["quant"], data["ordered_cny"],
        tuple(ArticleBuild(**build) for build in data["build"]),
        tuple((name, mark, price) for name, mark, price in data["ranking"]["rows"]),
    )  # fmt: skip
