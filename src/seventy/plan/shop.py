"""One whole plan: enumerate, cost, keep, rank; what `seventy plan` prints in its several forms."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from seventy.catalog.cpus import Cpu, all_cpus
from seventy.catalog.models import find_model
from seventy.catalog.platforms import Platform, all_platforms
from seventy.catalog.prices import PriceBook
from seventy.plan.builds import Census, enumerate_builds
from seventy.plan.cost import Usage
from seventy.plan.rank import Offer, Wishes, best, front, nearest, offers
from seventy.plan.roofline import Load
from seventy.plan.runs import has_kernels, why_not_model
from seventy.plan.wanted import catalogue_load

# What a person who cannot have the model they want might run instead, the largest first.
SMALLER = ("qwen3-30b-a3b", "qwen3-14b", "llama-3.1-8b", "llama-3.2-3b")


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
    smaller: Offer | None
    seconds: float


def shop(
    load: Load, context: int, engine: str, book: PriceBook, wishes: Wishes, usage: Usage, aim: str,
    own_drive: bool = False, cpus: Sequence[Cpu] = (), platforms: Sequence[Platform] = (),
) -> Plan:  # fmt: skip
    """Plans over the whole catalogue and a user's own parts (which replace catalogue parts of the same name)."""
    began = time.perf_counter()
    own_names = {cpu.name for cpu in cpus} | {platform.name for platform in platforms}
    every_cpu = [*cpus, *(cpu for cpu in all_cpus() if cpu.name not in own_names)]
    if engine == "seventy":
        every_cpu = [cpu for cpu in every_cpu if has_kernels(cpu.isa)]
    every_platform = [*platforms, *(body for body in all_platforms() if body.name not in own_names)]
    census = enumerate_builds(load, context, engine, book, every_platform, every_cpu, own_drive)
    priced = offers(census.builds, wishes, usage)
    kept = [offer for offer in priced if not offer.breaks]
    # With few platforms to choose from, several builds of each are worth seeing.
    per_platform = 1 if len({offer.build.platform.name for offer in kept}) >= 5 else 4
    close = [] if kept else nearest(priced)
    smaller = None
    if not kept:
        # The smallest first: where even that finds nothing, the larger ones need no look.
        for name in reversed(SMALLER):
            other = catalogue_load(name, "Q4_K_M")
            if other.file_gb >= load.file_gb:
                break
            if why_not_model(engine, find_model(name), "Q4_K_M"):
                continue
            again = enumerate_builds(other, context, engine, book, every_platform, every_cpu, own_drive)
            found = best([offer for offer in offers(again.builds, wishes, usage) if not offer.breaks], aim)
            if not found:
                break
            smaller = found[0]
    return Plan(
        load, context, engine, book, wishes, usage, aim, census, tuple(kept), tuple(best(kept, aim, per_platform)),
        tuple(front(kept)), tuple(close), smaller, time.perf_counter() - began,
    )  # fmt: skip
