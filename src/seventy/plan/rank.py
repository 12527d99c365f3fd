"""Keeps the builds that meet a person's limits, orders them by aim, and says what gives when none does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seventy.catalog.platforms import NOISE
from seventy.errors import SeventyError
from seventy.plan.builds import Build
from seventy.plan.cost import Cost, Usage, cost_of

AIMS = ("speed", "price", "value", "running-cost", "quiet")
PLACES = ("home", "office", "rack")
HOME_LITRES = 60


@dataclass(frozen=True, slots=True)
class Wishes:
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
            raise ValueError(f"--place {self.place!r} is none of {', '.join(PLACES)}")


@dataclass(frozen=True, slots=True)
class Offer:
    """A build with its running cost and the wishes it breaks (message key, values)."""

    build: Build
    cost: Cost
    breaks: tuple[tuple[str, dict[str, object]], ...] = ()


def broken(build: Build, cost: Cost, wishes: Wishes) -> tuple[tuple[str, dict[str, object]], ...]:
    """The wishes a build does not meet; what is unknown of it cannot be promised and breaks a wish about it."""
    platform = build.platform
    found: list[tuple[str, dict[str, object]]] = []

    def limit(key: str, value: float | None, most: float | None) -> None:
        if most is not None and (value is None or value > most):
            found.append((key if value is not None else key + "_unknown", {"value": value or 0.0, "most": float(most)}))

    limit("x_budget", build.price, wishes.budget)
    limit("x_watts", cost.load_w, wishes.max_watts)
    limit("x_litres", platform.volume_l, wishes.max_litres)
    if wishes.min_tok_s is not None and build.prediction.decode.mid < wishes.min_tok_s:
        found.append(("x_speed", {"value": build.prediction.decode.mid, "least": float(wishes.min_tok_s)}))
    noise = platform.noise_class
    loudest = "silent" if wishes.silent else "quiet" if wishes.quiet or wishes.place == "home" else (
        "office" if wishes.place == "office" else None)  # fmt: skip
    if loudest is not None and (not noise or NOISE.index(noise) > NOISE.index(loudest)):
        found.append(("x_noise" if noise else "x_noise_unknown", {"noise": noise, "most": loudest}))
    if wishes.place in ("home", "office") and platform.rack:
        found.append(("x_rack", {}))
    if wishes.place == "home" and platform.volume_l is not None and platform.volume_l > HOME_LITRES:
        found.append(("x_litres", {"value": platform.volume_l, "most": float(HOME_LITRES)}))
    if wishes.place == "rack" and not platform.rack:
        found.append(("x_not_rack", {}))
    return tuple(found)


def offers(builds: Sequence[Build], wishes: Wishes, usage: Usage) -> list[Offer]:
    """Every build with what it costs and what it breaks."""
    result = []
    for build in builds:
        cost = cost_of(build, usage)
        result.append(Offer(build, cost, broken(build, cost, wishes)))
    return result


def order(aim: str) -> Callable[[Offer], tuple[float, ...]]:
    """The sort key of an aim; the first is the best."""
    if aim not in AIMS:
        raise SeventyError(f"--best {aim!r} is none of {', '.join(AIMS)}.")

    def key(offer: Offer) -> tuple[float, ...]:
        build, speed = offer.build, offer.build.prediction.decode.mid
        if aim == "speed":
            return (-round(speed, 2), build.price)
        if aim == "price":
            return (build.price, -speed)
        if aim == "value":
            return (-speed / build.price, build.price)
        if aim == "running-cost":
            return (offer.cost.million_tokens_electricity, build.price)
        noise = build.platform.noise_class
        return (float(NOISE.index(noise)) if noise else 9.0, build.platform.noise_dba_idle or 99.0, -speed, build.price)

    return key


def best(found: Sequence[Offer], aim: str, per_platform: int = 1) -> list[Offer]:
    """The offers in order of the aim, no more than so many of one platform."""
    result: list[Offer] = []
    seen: dict[str, int] = {}
    for offer in sorted(found, key=order(aim)):
        name = offer.build.platform.name
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= per_platform:
            result.append(offer)
    return result


def front(found: Sequence[Offer]) -> list[Offer]:
    """The Pareto front: nothing is both cheaper and faster than these; cheapest first."""
    result: list[Offer] = []
    for offer in sorted(found, key=lambda offer: (offer.build.price, -offer.build.prediction.decode.mid)):
        if not result or offer.build.prediction.decode.mid > result[-1].build.prediction.decode.mid * 1.005:
            result.append(offer)
    return result


def nearest(found: Sequence[Offer]) -> list[Offer]:
    """The builds that come nearest to wishes none meets, one for each set of wishes given up, the nearest first."""

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
