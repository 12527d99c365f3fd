"""Joules of a task: what the machine counted itself, or a wall meter's watts times its time."""

import time
from dataclasses import dataclass
from types import TracebackType

from seventy.bench.engine import Meter
from seventy.errors import SeventyError
from seventy.machine import power


@dataclass(slots=True)
class Wall:
    """A context that counts joules at a constant power, as a meter at the wall showed it under load."""

    watts: float
    joules: float = 0.0
    _start: float = 0.0

    def __enter__(self) -> "Wall":
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.joules = self.watts * (time.perf_counter() - self._start)


def meter(watts: float | None) -> Meter | None:
    """Return the energy meter to use: the wall meter if its watts are given, else the machine's counters, else None."""
    if watts is not None:
        return lambda: Wall(watts)
    try:
        power.domains()
    except SeventyError:
        return None
    return power.Meter


def cny_per_million_tokens(joules_per_token: float, cny_per_kwh: float) -> float:
    return joules_per_token * 1e6 / 3.6e6 * cny_per_kwh
