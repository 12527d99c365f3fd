"""What was measured on this machine, kept in the user's cache folder as versioned JSON."""

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs

from seventy.jit.compiler import Library
from seventy.machine import measure
from seventy.machine.memory import total_bytes
from seventy.machine.topology import cpu_name, physical_cores

VERSION = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """This machine's limits. `read_bandwidth_gbs` (1e9 bytes/s) is the most any pattern read, `int8_gops` (1e9
    operations/s, two a multiply-add, all cores) is by ISA level and empty until `seventy measure` ran.
    """

    date: str
    cpu: str
    isa: str
    cores: int
    threads: int
    memory_bytes: int
    read_bandwidth_gbs: float
    int8_gops: dict[str, float] = field(default_factory=dict)
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"profile version {self.version!r}, not {VERSION}")
        for name in ("date", "cpu", "isa"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, not a text")
        for name in ("cores", "threads", "memory_bytes"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}, not a count")
        rates = {"read_bandwidth_gbs": self.read_bandwidth_gbs, **self.int8_gops}
        for name, rate in rates.items():
            if not isinstance(rate, int | float) or not 0 < rate < 1e9:
                raise ValueError(f"{name} is {rate!r}, not a rate")

    def save(self) -> None:
        """Kept for the next time; where the folder cannot be written it is measured again then."""
        with contextlib.suppress(OSError):
            place = path()
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=place.parent)
            with os.fdopen(handle, "w") as out:
                json.dump(asdict(self), out, indent=1)
            Path(temporary).replace(place)


def path() -> Path:
    return Path(platformdirs.user_cache_dir("seventy")) / "machine.json"


def read(text: str) -> Profile:
    """A profile from its JSON. Raises ValueError where it is of another version or not a profile."""
    data: Any = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"not a machine profile of version {VERSION}")
    known = {f.name for f in fields(Profile)}
    if set(data) != known:
        raise ValueError(f"missing or unknown: {', '.join(sorted(set(data) ^ known))}")
    if not isinstance(data["int8_gops"], dict):
        raise ValueError("int8_gops is not a table")
    return Profile(**data)


def load() -> Profile | None:
    """The kept profile, or None where there is none, it is broken, or this machine is no longer the one measured."""
    try:
        profile = read(path().read_text())
    except (OSError, ValueError):
        return None
    # The system's total moves a little with the kernel; a new DIMM moves it a lot, and the bandwidth with it.
    same_memory = abs(profile.memory_bytes / total_bytes() - 1) < 0.02
    return profile if (profile.cpu, profile.cores, same_memory) == (cpu_name(), len(physical_cores()), True) else None


def quick(library: Library, threads: int) -> Profile:
    """The one-second measurement, kept until a whole one (`seventy measure`) takes its place."""
    profile = Profile(
        date=today(),
        cpu=cpu_name(),
        isa=library.isa.name,
        cores=len(physical_cores()),
        threads=threads,
        memory_bytes=total_bytes(),
        read_bandwidth_gbs=measure.read_bandwidth(library, threads),
    )
    profile.save()
    return profile


def today() -> str:
    return datetime.now(UTC).date().isoformat()
