"""What was measured on this machine, kept in the user's cache folder as versioned JSON."""

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from seventy.jit.compiler import Library
from seventy.jit.isa import wide_name
from seventy.language import t
from seventy.machine import cpu_time, settings, smbios, topology
from seventy.machine.memory import total_bytes
from seventy.machine.records import from_json, keep
from seventy.machine.settings import Settings
from seventy.machine.smbios import Slots
from seventy.measure import rates
from seventy.measure.rates import Samples

VERSION = 1
# Where other programs use more than that meanwhile, memory was not ours alone.
_MOST_DISTURBING_CPUS = 0.3


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """GB/s (1e9 bytes/s) that `threads` threads read: CPUs of `cpu_nodes`, memory of `memory_nodes`.

    `per_core` threads run on each core. The best of many passes in several patterns, and what is reached most of the
    time; far apart where others use the memory, too.
    """

    threads: int
    per_core: int
    cpu_nodes: tuple[int, ...]
    memory_nodes: tuple[int, ...]
    best_gbs: float
    typical_gbs: float


@dataclass(frozen=True, slots=True)
class Profile:
    """This machine's limits.

    `read_bandwidth_gbs` (1e9 bytes/s) is the most that any pattern and thread count read, `threads` the fewest that
    came within 3 % of it. `int8_gops` (1e9 operations/s, two a multiply-add, all cores) is by ISA level, empty where
    only the one-second measurement ran (`whole` is false). `cores` are those this process may use. `disturbed` says
    that other programs used the CPUs meanwhile.
    """

    version: int
    date: str
    whole: bool
    cpu: str
    isa: str
    sockets: int
    nodes: int
    cores: int
    threads_per_core: int
    last_level_cache_bytes: int
    memory_bytes: int
    threads: int
    read_bandwidth_gbs: float
    bandwidth: tuple[Bandwidth, ...]
    int8_gops: dict[str, float]
    float_gflops: float | None
    disk_read_gbs: float | None
    slots: Slots
    settings: Settings
    disturbed: bool = False

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(t("profile version {version}, not {version_2}", version=self.version, version_2=VERSION))
        for name in ("sockets", "nodes", "cores", "threads_per_core", "memory_bytes", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(t("{name} is {self}", name=name, self=getattr(self, name)))
        rates = [self.read_bandwidth_gbs, *self.int8_gops.values()]
        rates += [rate for row in self.bandwidth for rate in (row.best_gbs, row.typical_gbs)]
        rates += [rate for rate in (self.float_gflops, self.disk_read_gbs) if rate is not None]
        for rate in rates:
            if not (rate > 0 and math.isfinite(rate)):
                raise ValueError(t("{rate} is no rate", rate=rate))

    def text(self) -> str:
        """Encode the profile as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def save(self) -> None:
        """Save the profile for later runs. If the folder cannot be written, later runs measure again."""
        keep(path(), self.text())


def path() -> Path:
    return Path(platformdirs.user_cache_dir("seventy")) / "machine.json"


def read(text: str) -> Profile:
    """Decode a profile from JSON. Raises ValueError if it has another version or is not a profile."""
    return from_json(Profile, json.loads(text), "the profile")


def _kept() -> Profile | None:
    """The kept profile where it is whole and of this CPU and memory, whatever this process may use of them."""
    try:
        profile = read(path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # The system's total moves a little with the kernel; a new DIMM moves it a lot, and the bandwidth with it.
    same_memory = abs(profile.memory_bytes / total_bytes() - 1) < 0.02
    return profile if profile.cpu == topology.cpu_name() and same_memory else None


def load() -> Profile | None:
    """Load the stored profile; return None if there is none, it is broken, or the machine has changed."""
    profile = _kept()
    return profile if profile and profile.cores == len(topology.physical_cores()) else None


def quick(library: Library, threads: int) -> Profile:
    """Measure for one second and store the result until a full measurement (`seventy measure`) replaces it.

    The profile is `disturbed` if other programs used the CPUs meanwhile, and is then measured again next time.
    """
    cpus = topology.allowed_cpus()
    start, before = time.perf_counter(), cpu_time.cpu_seconds(cpus)
    samples = rates.read_local(library, threads)
    busy = (cpu_time.cpu_seconds(cpus) - before) / (time.perf_counter() - start)
    profile = describe(wide_name(library.isa.name), [bandwidth(samples, threads, 1, (0,), (0,))])
    profile = replace(profile, disturbed=busy > _MOST_DISTURBING_CPUS)
    kept = _kept()
    more = kept is not None and kept.read_bandwidth_gbs > profile.read_bandwidth_gbs
    if profile.disturbed and more and kept and kept.cores == profile.cores:
        # More was seen on this machine before: the limit is not lower because it is busy now.
        return kept
    # A process bound to fewer cores does not throw away what was measured with all of them.
    if kept is None or not kept.whole:
        profile.save()
    return profile


def raise_limit(profile: Profile, gbs: float) -> bool:
    """Raise the stored bandwidth limit to what memory has delivered; return False if another profile is stored."""
    if load() != profile:
        return False
    replace(profile, read_bandwidth_gbs=round(gbs, 2)).save()
    return True


def bandwidth(
    samples: Samples, threads: int, per_core: int, cpu_nodes: tuple[int, ...], memory_nodes: tuple[int, ...]
) -> Bandwidth:
    best, typical = round(samples.best_gbs, 2), round(samples.typical_gbs, 2)
    return Bandwidth(threads, per_core, cpu_nodes, memory_nodes, best, typical)


def describe(
    isa: str,
    rows: list[Bandwidth],
    int8_gops: dict[str, float] | None = None,
    float_gflops: float | None = None,
    disk_read_gbs: float | None = None,
) -> Profile:
    """Make a profile of this machine from these measurements and its current settings."""
    machine = topology.read()
    most = max(row.best_gbs for row in rows)
    return Profile(
        version=VERSION,
        date=datetime.now(UTC).date().isoformat(),
        whole=int8_gops is not None,
        cpu=topology.cpu_name(),
        isa=isa,
        sockets=machine.sockets,
        nodes=len(machine.nodes),
        cores=len(machine.usable),
        threads_per_core=machine.threads_per_core,
        last_level_cache_bytes=machine.last_level_cache_bytes,
        memory_bytes=total_bytes(),
        threads=min(row.threads for row in rows if row.best_gbs >= 0.97 * most),
        read_bandwidth_gbs=most,
        bandwidth=tuple(rows),
        int8_gops=int8_gops or {},
        float_gflops=float_gflops,
        disk_read_gbs=disk_read_gbs,
        slots=smbios.read(),
        settings=settings.read(),
    )
