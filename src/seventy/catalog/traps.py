"""What a buyer of a platform, a socket or a kind of module must know before paying, with its source."""

from dataclasses import dataclass
from functools import cache

from seventy.catalog.rows import load
from seventy.language import t


@dataclass(frozen=True, slots=True)
class Trap:
    """A known problem. `of` says what `value` names: a platform, a socket or a form of modules."""

    of: str
    value: str
    en: str
    zh: str
    source: str
    date: str

    def __post_init__(self) -> None:
        if self.of not in ("platform", "socket", "form"):
            raise ValueError(t("of {of!r} is none of platform, socket, form", of=self.of))
        if not (self.en and self.zh and self.source and self.date):
            raise ValueError(t("{value}: a trap needs both languages, source and date", value=self.value))


@cache
def all_traps() -> tuple[Trap, ...]:
    return load("traps.csv", Trap)


def traps_of(platform: str, socket: str, forms: set[str]) -> list[Trap]:
    """List the known problems of a build: of its platform, its socket, and the forms of its modules."""
    wanted = {("platform", platform), ("socket", socket), *(("form", form) for form in forms)}
    return [trap for trap in all_traps() if (trap.of, trap.value) in wanted]
