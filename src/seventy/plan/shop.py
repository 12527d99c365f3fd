"""One whole plan: enumerate, cost, keep, rank; what `seventy plan` prints in its several forms."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from seventy.catalog.book import PriceBook
from seventy.catalog.cpus import Cpu, all_cpus
from seventy.catalog.platforms import Platform, all_platforms
from seventy.plan.builds import Census, enumerate_builds
from seventy.plan.cost import Usage
from seventy.plan.models_front import Suggestion, suggestions
from seventy.plan.rank import Constraints, Offer, best, front, nearest, offers, unique
from seventy.plan.roofline import Load
from seventy.plan.runs import has_kernels
from seventy.plan.wanted import catalogue_load

# A model small enough that every machine within the limits is among its builds.
SMALLEST = "llama-3.2-3b"
# Of the machines within the limits, so many with the most memory and with the most bandwidth are asked for models.
_ASKED = 6
# Slower than this no other model is offered for a model that nothing holds.
ALTERNATIVE_TOK_S = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer: what was counted, what is within the limits and its order, or what comes nearest."""

    load: Load
    context: int
    engine: str
    book: PriceBook
    wishes: Constraints
    usage: Usage
    aim: str
    census: Census
    kept: tuple[Offer, ...]
    ranked: tuple[Offer, ...]
    front: tuple[Offer, ...]
    nearest: tuple[Offer, ...]
    instead: tuple[Offer, Suggestion] | None
    # The model at the largest quant that meets the wishes, where the wanted one does not, and the machine for it.
    lower: tuple[Offer, Load] | None
    seconds: float
    users: int = 1


_Part = TypeVar("_Part", Cpu, Platform)


def _with_own(own: Sequence[_Part], catalogue: Iterable[_Part]) -> list[_Part]:
    """A user's own parts, and those of the catalogue that have other names."""
    names = {part.name for part in own}
    return list(own) + [part for part in catalogue if part.name not in names]


@dataclass(frozen=True, slots=True)
class _Market:
    """The parts that machines can be built of, and what is asked of a machine whatever the model."""

    context: int
    engine: str
    book: PriceBook
    wishes: Constraints
    usage: Usage
    own_drive: bool
    cpus: Sequence[Cpu]
    platforms: Sequence[Platform]

    def census(self, load: Load, users: int) -> Census:
        """Build every machine for a model, and count what was left out."""
        return enumerate_builds(
            load, self.context, self.engine, self.book, self.platforms, self.cpus, self.own_drive, users
        )

    def offers(self, load: Load, users: int) -> list[Offer]:
        """Price every machine for a model, those outside the limits too."""
        return offers(self.census(load, users).builds, self.wishes, self.usage)

    def otherwise(
        self, priced: Sequence[Offer], lower: Sequence[Load], users: int, aim: str
    ) -> tuple[list[Offer], tuple[Offer, Suggestion] | None, tuple[Offer, Load] | None]:
        """Return alternatives if no machine is within the limits: near misses, another model, and a lower quant."""
        every = self.offers(catalogue_load(SMALLEST, "Q4_K_M"), 1)
        within = [offer for offer in every if not {key for key, _ in offer.breaks} - {"x_speed"}]
        instead = alternative(within, self.engine, self.context, self.wishes.min_tok_s or ALTERNATIVE_TOK_S)
        # On the machines with the most memory; the others do not hold a load that these do not.
        room = max((offer.build.dimms.room_bytes for offer in within), default=0)
        return nearest(priced), instead, self._lower(lower, users, room, aim)

    def _lower(self, loads: Sequence[Load], users: int, room_bytes: int, aim: str) -> tuple[Offer, Load] | None:
        """The first of the loads that a machine within the limits runs, and the best such machine."""
        for load in loads:
            able = [] if load.need(self.context, users).total > room_bytes else self.offers(load, users)
            if chosen := [offer for offer in able if not offer.breaks]:
                return best(chosen, aim)[0], load
        return None


def shop(
    load: Load, context: int, engine: str, book: PriceBook, wishes: Constraints, usage: Usage, aim: str,
    own_drive: bool = False, cpus: Sequence[Cpu] = (), platforms: Sequence[Platform] = (), users: int = 1,
    lower: Sequence[Load] = (),
) -> Plan:  # fmt: skip
    """Plan over the whole catalogue and a user's own parts, which replace catalogue parts of the same name.

    `lower` are loads of the same model at lower quants, the largest first: where nothing meets the wishes, the first
    that something meets them with is offered.
    """
    began = time.perf_counter()
    market = _Market(
        context, engine, book, wishes, usage, own_drive,
        [cpu for cpu in _with_own(cpus, all_cpus()) if engine != "seventy" or has_kernels(cpu.isa)],
        _with_own(platforms, all_platforms()),
    )  # fmt: skip
    census = market.census(load, users)
    priced = offers(census.builds, wishes, usage)
    kept = [offer for offer in priced if not offer.breaks]
    # With few platforms to choose from, several builds of each are worth seeing.
    per_platform = 1 if len({offer.build.platform.name for offer in kept}) >= 5 else 4
    close, instead, smaller = ([], None, None) if kept else market.otherwise(priced, lower, users, aim)
    return Plan(
        load, context, engine, book, wishes, usage, aim, census, tuple(kept), tuple(best(kept, aim, per_platform)),
        tuple(front(kept)), tuple(close), instead, smaller, time.perf_counter() - began, users,
    )  # fmt: skip


def alternative(
    within: Sequence[Offer], engine: str, context: int, least_tok_s: float
) -> tuple[Offer, Suggestion] | None:
    """Return the best-scoring model at this speed and a machine within the limits; None if there is none."""
    most = sorted(within, key=lambda offer: (-offer.build.dimms.total_gb, -offer.build.prediction.decode.mid))[:_ASKED]
    fastest = sorted(within, key=lambda offer: -offer.build.prediction.decode.mid)[:_ASKED]
    found = [
        (offer, each) for offer in unique([*most, *fastest])
        for each in suggestions(offer.build.prediction.machine, engine, context)
        if each.prediction.decode.mid >= least_tok_s
    ]  # fmt: skip
    if not found:
        return None
    return min(found, key=lambda pair: (-pair[1].quality.score, pair[0].build.price, -pair[1].prediction.decode.mid))
