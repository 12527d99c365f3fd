"""Keeps the builds that meet a person's limits, orders them by aim, and says what gives when none does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seventy.catalog.platforms import NOISE, Platform
from seventy.errors import SeventyError
from seventy.language import t
from seventy.plan.builds import Build
from seventy.plan.cost import Cost, Usage, cost_of

# "sense" is what a friend would buy: the fastest before each further step costs more than it brings; "budget" what he
# would buy with money that is there to be spent.
AIMS = ("sense", "budget", "speed", "price", "value", "running-cost", "quiet")
PLACES = ("home", "office", "rack", "any")
HOME_LITRES = 60
# Speeds this close are the same: then what costs less over the years is better, then what is quieter.
SAME_SPEED = 1.03
# A step up the front makes sense while speed grows at least by this power of the price.
WORTH_POWER = 0.4
# With a budget a step may bring less, but nothing costs more than so many times what makes sense without one.
BUDGET_POWER, BUDGET_MOST = 0.2, 2.0


@dataclass(frozen=True, slots=True)
class Constraints:
    """A person's limits; None is no limit."""

    budget: float | None = None
    quiet: bool = False
    silent: bool = False
    max_watts: float | None = None
    max_litres: float | None = None
    min_tok_s: float | None = None
    place: str | None = None

    def __post_init__(self) -> None:
        if self.place is not None and self.place not in PLACES:
            raise ValueError(t("--place {place!r} is none of {places}", place=self.place, places=", ".join(PLACES)))


@dataclass(frozen=True, slots=True)
class Offer:
    """A build with its running cost and the wishes it breaks (message key, values)."""

    build: Build
    cost: Cost
    breaks: tuple[tuple[str, dict[str, object]], ...] = ()


def broken(build: Build, cost: Cost, wishes: Constraints) -> tuple[tuple[str, dict[str, object]], ...]:
    """List the limits a build does not meet. An unknown value counts as not meeting its limit."""
    platform = build.platform
    found: list[tuple[str, dict[str, object]]] = []

    def limit(key: str, value: float | None, most: float | None) -> None:
        if most is not None and (value is None or value > most):
            found.append((key if value is not None else key + "_unknown", {"value": value or 0.0, "most": float(most)}))

    limit("x_budget", build.safe_price, wishes.budget)
    limit("x_watts", cost.load_w, wishes.max_watts)
    limit("x_litres", platform.volume_l, wishes.max_litres)
    if wishes.min_tok_s is not None and build.prediction.decode.mid < wishes.min_tok_s:
        found.append(("x_speed", {"value": build.prediction.decode.mid, "least": float(wishes.min_tok_s)}))
    noise = platform.noise_class
    loudest = _loudest(platform, wishes)
    if loudest is not None and (not noise or NOISE.index(noise) > NOISE.index(loudest)):
        found.append(("x_noise" if noise else "x_noise_unknown", {"noise": noise, "most": loudest}))
    if wishes.place in ("home", "office") and platform.rack:
        found.append(("x_rack", {}))
    if wishes.place == "home" and platform.volume_l is not None and platform.volume_l > HOME_LITRES:
        found.append(("x_litres", {"value": platform.volume_l, "most": float(HOME_LITRES)}))
    if wishes.place == "rack" and not platform.rack:
        found.append(("x_not_rack", {}))
    return tuple(found)


def _loudest(platform: Platform, wishes: Constraints) -> str | None:
    """How loud a machine may be, None where that is left open."""
    if wishes.silent:
        return "silent"
    if wishes.quiet:
        return "quiet"
    if wishes.place == "home":
        # A board is as quiet as the case and the cooler that its owner buys.
        return None if platform.kind == "board" else "quiet"
    return "office" if wishes.place == "office" else None


def offers(builds: Sequence[Build], wishes: Constraints, usage: Usage) -> list[Offer]:
    """Return every build with its cost and the limits it breaks."""
    result = []
    for build in builds:
        cost = cost_of(build, usage)
        result.append(Offer(build, cost, broken(build, cost, wishes)))
    return result


def order(aim: str) -> Callable[[Offer], tuple[float, ...]]:
    """Return the sort key of an aim; the smallest key is best."""
    if aim not in AIMS:
        raise SeventyError("--best {aim!r} is none of {aims}.", aim=aim, aims=", ".join(AIMS))

    def key(offer: Offer) -> tuple[float, ...]:
        build, speed = offer.build, offer.build.prediction.decode.mid
        if aim in ("speed", "sense", "budget"):
            return (-speed, build.price)
        if aim == "price":
            return (build.price, -speed)
        if aim == "value":
            return (-speed / build.price, build.price)
        if aim == "running-cost":
            return (offer.cost.million_tokens_electricity, build.price)
        return (_noise(offer), build.platform.noise_dba_idle or 99.0, -speed, build.price)

    return key


def _noise(offer: Offer) -> float:
    noise = offer.build.platform.noise_class
    return float(NOISE.index(noise)) if noise else 9.0


def in_order(found: Sequence[Offer], aim: str) -> list[Offer]:
    """Sort offers by an aim; of equally fast ones the cheapest over the years comes first."""
    ordered = sorted(found, key=order(aim))
    if aim not in ("speed", "sense", "budget"):
        return ordered
    result: list[Offer] = []
    while ordered:
        least = ordered[0].build.prediction.decode.mid / SAME_SPEED
        same = [offer for offer in ordered if offer.build.prediction.decode.mid >= least]
        result += sorted(same, key=lambda offer: (round(offer.cost.over_years), _noise(offer)))
        ordered = ordered[len(same) :]
    if aim in ("sense", "budget") and result:
        chosen = sensible(result, aim == "budget")
        result = [chosen, *(offer for offer in result if offer is not chosen)]
    return result


def sensible(found: Sequence[Offer], budget: bool = False) -> Offer:
    """Return the last offer of the front up to which each step is worth its price."""
    steps = front(found)
    chosen = _climb(steps[0], steps, WORTH_POWER)
    if not budget:
        return chosen
    most = BUDGET_MOST * chosen.build.price
    return _climb(chosen, [offer for offer in steps if chosen.build.price < offer.build.price <= most], BUDGET_POWER)


def _climb(chosen: Offer, steps: Sequence[Offer], power: float) -> Offer:
    for offer in steps:
        faster = offer.build.prediction.decode.mid / chosen.build.prediction.decode.mid
        if faster >= (offer.build.price / chosen.build.price) ** power:
            chosen = offer
    return chosen


def best(found: Sequence[Offer], aim: str, per_platform: int = 1) -> list[Offer]:
    """Sort offers by an aim, with at most `per_platform` of one platform, and one of those that differ only in name."""
    result: list[Offer] = []
    seen: dict[str, int] = {}
    shown: set[tuple[object, ...]] = set()
    for offer in in_order(found, aim):
        build = offer.build
        name = build.platform.name
        inferred = build.parts[0].price is not None and build.parts[0].price.inferred
        alike = (build.cpu.name, build.sockets, build.dimms, build.platform.kind, round(build.prediction.decode.mid, 3))
        if inferred and alike in shown:
            continue
        shown.add(alike)
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= per_platform:
            result.append(offer)
    return result


def unique(found: Sequence[Offer]) -> list[Offer]:
    """Remove duplicate offers, keeping the order."""
    return list({id(offer): offer for offer in found}.values())


def front(found: Sequence[Offer]) -> list[Offer]:
    """Return the Pareto front, cheapest first: no offer is both cheaper and faster by more than SAME_SPEED."""
    result: list[Offer] = []
    for offer in sorted(found, key=lambda offer: (offer.build.price, -offer.build.prediction.decode.mid)):
        if not result or offer.build.prediction.decode.mid > result[-1].build.prediction.decode.mid * SAME_SPEED:
            result.append(offer)
    return result


def nearest(found: Sequence[Offer]) -> list[Offer]:
    """Return the builds nearest to limits that none meets, one per set of broken limits, nearest first."""

    def distance(offer: Offer) -> float:
        over = 0.0
        for key, values in offer.breaks:
            value, most = values.get("value"), values.get("most") or values.get("least")
            if isinstance(value, float) and isinstance(most, float) and value and most:
                over += max(value / most, most / value) - 1
            elif key == "x_noise":
                over += 0.5 * (NOISE.index(str(values["noise"])) - NOISE.index(str(most)))
            else:
                over += 0.5
        return over

    result: list[Offer] = []
    kinds: set[tuple[str, ...]] = set()
    for offer in sorted(found, key=distance):
        kind = tuple(sorted({key for key, _ in offer.breaks}))
        if kind not in kinds:
            kinds.add(kind)
            result.append(offer)
        if len(result) == 4:
            break
    return result
