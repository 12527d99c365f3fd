"""One whole plan: enumerate, cost, keep, rank; what `seventy plan` prints in its several forms."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from seventy.catalog.book import PriceBook
from seventy.catalog.cpus import Cpu, all_cpus
from seventy.catalog.platforms import Platform, all_platforms
from seventy.plan.builds import Census, enumerate_builds
from seventy.plan.cost import Usage
from seventy.plan.models_front import Suggestion, suggestions
from seventy.plan.rank import Offer, Wishes, best, front, nearest, offers, unique
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
    wishes: Wishes
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


def shop(
    load: Load, context: int, engine: str, book: PriceBook, wishes: Wishes, usage: Usage, aim: str,
    own_drive: bool = False, cpus: Sequence[Cpu] = (), platforms: Sequence[Platform] = (), users: int = 1,
    lower: Sequence[Load] = (),
) -> Plan:  # fmt: skip
    """Plans over the whole catalogue and a user's own parts (which replace catalogue parts of the same name).

    `lower` are loads of the same model at lower quants, the largest first: where nothing meets the wishes, the first
    that something meets them with is offered.
    """
    began = time.perf_counter()
    own_names = {cpu.name for cpu in cpus} | {platform.name for platform in platforms}
    every_cpu = [*cpus, *(cpu for cpu in all_cpus() if cpu.name not in own_names)]
    if engine == "seventy":
        every_cpu = [cpu for cpu in every_cpu if has_kernels(cpu.isa)]
    every_platform = [*platforms, *(body for body in all_platforms() if body.name not in own_names)]
    census = enumerate_builds(load, context, engine, book, every_platform, every_cpu, own_drive, users)
    priced = offers(census.builds, wishes, usage)
    kept = [offer for offer in priced if not offer.breaks]
    # With few platforms to choose from, several builds of each are worth seeing.
    per_platform = 1 if len({offer.build.platform.name for offer in kept}) >= 5 else 4
    close = [] if kept else nearest(priced)
    instead = smaller = None
    if not kept:

        def all_for(load: Load, users: int) -> list[Offer]:
            found = enumerate_builds(load, context, engine, book, every_platform, every_cpu, own_drive, users)
            return offers(found.builds, wishes, usage)

        every = all_for(catalogue_load(SMALLEST, "Q4_K_M"), 1)
        within = [offer for offer in every if not {key for key, _ in offer.breaks} - {"x_speed"}]
        instead = alternative(within, engine, context, wishes.min_tok_s or ALTERNATIVE_TOK_S)
        room = max((offer.build.dimms.room_bytes for offer in within), default=0)
        for each in lower:
            # On the machines with the most memory, the others do not hold it either.
            able = [] if each.need(context, users).total > room else all_for(each, users)
            if chosen := [offer for offer in able if not offer.breaks]:
                smaller = best(chosen, aim)[0], each
                break
    return Plan(
        load, context, engine, book, wishes, usage, aim, census, tuple(kept), tuple(best(kept, aim, per_platform)),
        tuple(front(kept)), tuple(close), instead, smaller, time.perf_counter() - began, users,
    )  # fmt: skip


def alternative(
    within: Sequence[Offer], engine: str, context: int, least_tok_s: float
) -> tuple[Offer, Suggestion] | None:
    """The machine within the limits and the model with the best score that it runs at this speed; None if none does."""
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
