"""What result cards on this machine say of the prediction: kept in the user's data folder, used by every prediction.

`seventy cards import` writes it (plan/recalibrate.py). A run is kept as how many times as fast as predicted it was.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median

import platformdirs

from seventy.errors import SeventyError
from seventy.language import t
from seventy.machine.records import from_json, keep
from seventy.plan.calibration import CALIBRATION, Calibration, Measured

VERSION = 1
# CPUs of a class whose runs agree must be so many before they speak for others of it.
_ENOUGH_CPUS = 2


@dataclass(frozen=True, slots=True)
class Run:
    """The ratios of measured to predicted speed of one card on one engine; None if not measured.

    `card` names the run, `cpu` and `kind` are those of plan/machine.py.
    """

    card: str
    cpu: str
    kind: str
    engine: str
    decode: float | None
    prefill: float | None


@dataclass(frozen=True, slots=True)
class Runs:
    version: int
    runs: tuple[Run, ...]


def path() -> Path:
    return Path(platformdirs.user_data_dir("seventy")) / "calibration.json"


def runs() -> tuple[Run, ...]:
    """Return the imported runs. Raises SeventyError for a file that cannot be read."""
    try:
        found = from_json(Runs, json.loads(path().read_text(encoding="utf-8")), "the calibration")
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        again = t("delete it and import the cards again")
        raise SeventyError("{path} cannot be read ({error}); {again}", path=path(), error=error, again=again) from None
    return found.runs if found.version == VERSION else ()


def save(found: Iterable[Run]) -> None:
    keep(path(), json.dumps(asdict(Runs(VERSION, tuple(found))), indent=1) + "\n")


def current() -> Calibration:
    """Return the project's calibration, adjusted by the cards imported here."""
    try:
        changed = path().stat().st_mtime_ns
    except OSError:
        return CALIBRATION
    return _as_of(changed)


@lru_cache(1)
def _as_of(changed: int) -> Calibration:
    """The calibration of the file as it was changed at this time."""
    return apply(runs())


def apply(found: Iterable[Run]) -> Calibration:
    """Return a calibration with a factor for each CPU and engine, and for each class with several measured CPUs."""
    by_cpu: dict[tuple[str, str], list[Run]] = {}
    for run in found:
        by_cpu.setdefault((run.cpu, run.engine), []).append(run)
    factors = {key: _factors(each) for key, each in by_cpu.items()}
    by_kind: dict[tuple[str, str], list[Measured]] = {}
    for (_, engine), each in by_cpu.items():
        by_kind.setdefault((each[0].kind, engine), []).append(_factors(each))
    for key, of_cpus in by_kind.items():
        if len(of_cpus) >= _ENOUGH_CPUS:
            factors[key] = Measured(
                _median(each.decode for each in of_cpus), _median(each.prefill for each in of_cpus),
                sum(each.runs for each in of_cpus),
            )  # fmt: skip
    return replace(CALIBRATION, local=factors) if factors else CALIBRATION


def _factors(found: Iterable[Run]) -> Measured:
    found = list(found)
    return Measured(_median(run.decode for run in found), _median(run.prefill for run in found), len(found))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
