"""Watts, electricity and money over the years, and what a million tokens costs beside an API."""

from dataclasses import dataclass

from seventy.plan.builds import Build

# Idle watts at the wall by kind of machine, for the platforms nobody has measured: the middle of those measured.
IDLE_GUESS_W = {
    "rack_1u": 130, "rack_2u": 160, "tower_workstation": 55, "board": 50, "mini_pc": 14, "sff": 20,
}  # fmt: skip
IDLE_SECOND_SOCKET_W = 35
# Under load a memory-bound engine draws about four fifths of the CPUs' rated power on top of idle: R730 with two
# 145 W CPUs idles at 170 W and loads at 400 W.
LOAD_SHARE_OF_TDP = 0.8
TDP_GUESS_W = 100
DAYS = 365


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of a machine: hours under load per day (it is on all day), years, and the price of electricity."""

    hours_per_day: float
    tariff: float
    years: float


@dataclass(frozen=True, slots=True)
class Cost:
    """`estimated` says that watts were guessed from kind and rated power, not measured."""

    idle_w: float
    load_w: float
    estimated: bool
    kwh_per_day: float
    electricity_per_year: float
    over_years: float
    million_tokens: float
    million_tokens_electricity: float
    idle_per_year: float


def watts(build: Build) -> tuple[float, float, bool]:
    """Return idle and load watts at the wall, and whether either is an estimate."""
    platform = build.platform
    estimated = platform.idle_w is None or platform.load_w is None
    idle = platform.idle_w
    if idle is None:
        idle = IDLE_GUESS_W[platform.kind] + (IDLE_SECOND_SOCKET_W if build.sockets > 1 and not platform.rack else 0)
    tdp = (build.cpu.tdp_w or TDP_GUESS_W) * build.sockets
    # A platform's own load figure is for all its sockets filled; fewer or other CPUs are estimated from their rating.
    if platform.load_w is not None and build.sockets == platform.sockets:
        load = platform.load_w
    else:
        load, estimated = idle + LOAD_SHARE_OF_TDP * tdp, True
    return idle, max(load, idle), estimated


def cost_of(build: Build, usage: Usage) -> Cost:
    """Compute the running cost of a build."""
    idle, load, estimated = watts(build)
    kwh = (idle * (24 - usage.hours_per_day) + load * usage.hours_per_day) / 1000
    per_year = kwh * DAYS * usage.tariff
    total = build.price + per_year * usage.years
    millions = build.prediction.decode.mid * usage.hours_per_day * 3600 * DAYS * usage.years / 1e6
    return Cost(
        idle, load, estimated, kwh, per_year, total,
        total / millions if millions else float("inf"),
        per_year * usage.years / millions if millions else float("inf"),
        idle * (24 - usage.hours_per_day) / 1000 * DAYS * usage.tariff,
    )  # fmt: skip
