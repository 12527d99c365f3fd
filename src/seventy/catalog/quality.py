"""How good models are, as far as public figures say; a model without a figure is unknown, never guessed."""

from dataclasses import dataclass
from functools import cache

from seventy.catalog.rows import load
from seventy.language import t

METRIC = "MMLU-Pro"


@dataclass(frozen=True, slots=True)
class Quality:
    """A published score of a model of names.csv; `mode` is instruct or thinking (which writes many more tokens)."""

    name: str
    metric: str
    score: float
    mode: str
    date: str
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.score <= 100:
            raise ValueError(t("{name}: score {score}", name=self.name, score=self.score))
        if self.metric != METRIC or self.mode not in ("instruct", "thinking"):
            raise ValueError(t("{name}: {metric} in mode {mode!r}", name=self.name, metric=self.metric, mode=self.mode))
        if not self.source or not self.date:
            raise ValueError(t("{name}: a score needs source and date", name=self.name))


@cache
def _by_name() -> dict[str, Quality]:
    return {row.name: row for row in load("quality.csv", Quality)}


def quality_of(name: str) -> Quality | None:
    """Return the score of a model by its name in names.csv; None if no source gives one."""
    return _by_name().get(name)
