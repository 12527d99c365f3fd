"""A machine as the prediction sees it: cores, clock, channels that hold memory, and how sure we are of each."""

import math
import re
from dataclasses import dataclass, replace

from seventy.catalog.cpus import Cpu, all_cpus, find_cpu
from seventy.catalog.platforms import Platform
from seventy.errors import SeventyError
from seventy.language import either, listed, t
from seventy.plan.memory import LARGEST_GB, Dimms, channels_filled, modules_per_channel, peak_gbs
from seventy.plan.physics import settle
from seventy.runtime.memory import Need

# Channels a socket is taken to have when nothing is known of the CPU: as many as it has modules.
_GUESSED_CHANNELS = (1, 2, 3, 4, 6, 8, 12)
# Two modules on a DDR5 desktop channel: board makers' tables allow 3600 (Zen 4, Raptor Lake) to 4800.
_DDR5_TWO_PER_CHANNEL_MTS = 3600
# What an owner may have set two of them to; more than this no maker lists, and it is taken for what is printed.
_DDR5_TWO_PER_CHANNEL_MOST_MTS = 4800


@dataclass(frozen=True, slots=True)
class Machine:
    """The properties of a machine that decide its speed.

    `kind` is the class whose share of peak bandwidth was measured (plan/calibration.py); `limited` says that chiplets
    or links, not channels, set the peak. `peak_gbs` is the bandwidth of the channels that hold memory, within
    `limit_gbs` of chiplets and links; `measured_gbs` is a measured read bandwidth that replaces it,
    `measured_int8_gops` a measured limit of int8 operations. `memory_bytes` is the installed memory, `room_bytes` the
    part that models may take; both are None if unknown. `dimms` are its modules, if known; `notes` are message keys
    with their values.
    """

    name: str
    cpu: Cpu | None
    kind: str
    sockets: int
    cores: int
    ghz: float
    isa: str
    microarch: str
    channels: float
    channels_total: float
    mts: int
    peak_gbs: float
    memory_bytes: int | None
    room_bytes: int | None
    measured_gbs: float | None = None
    measured_int8_gops: float | None = None
    ssd_gbs: float = 3.0
    notes: tuple[tuple[str, dict[str, object]], ...] = ()
    dimms: Dimms | None = None
    limited: bool = False

    def __post_init__(self) -> None:
        if self.sockets < 1 or self.cores < 1 or self.peak_gbs <= 0:
            raise ValueError(t("{name}: sockets, cores and bandwidth must be positive", name=self.name))

    @property
    def guessed(self) -> bool:
        """Whether the CPU is not in the catalogue, so that its properties are assumed."""
        return self.cpu is None

    @property
    def prompts_unknown(self) -> bool:
        """Whether nothing is known of how it multiplies: neither the CPU nor a measurement."""
        return self.guessed and self.measured_int8_gops is None

    def holds(self, need: Need) -> bool:
        """Return whether a model fits; always true if the machine's memory is unknown."""
        return self.room_bytes is None or need.total <= self.room_bytes


def kind_of(cpu: Cpu, sockets: int) -> str:
    """Return the class of machine whose measured share of peak bandwidth applies."""
    if sockets > 1:
        return "two sockets"
    if cpu.vendor == "Apple":
        return "apple"
    if cpu.isa in ("neon", "dotprod", "i8mm") and not cpu.server_memory:
        return "arm"
    if cpu.server_memory or (cpu.mem_channels > 2 and not cpu.soldered):
        return "server"
    if cpu.soldered or cpu.socket == "mobile" or cpu.socket.startswith(("FP", "FCBGA", "FL")):
        return "mobile AMD" if cpu.vendor == "AMD" else "mobile"
    return "desktop"


def speed_of(
    cpu: Cpu, dimms: Dimms, sockets: int, printed: bool = False
) -> tuple[int, list[tuple[str, dict[str, object]]]]:
    """Return the MT/s the modules run at, and notes on why that is not the given speed.

    `printed` says that the given speed is the one printed on the modules, not the one they were seen to run at.
    """
    notes: list[tuple[str, dict[str, object]]] = []
    rated = dimms.mts or cpu.mem_speed_mts
    alternatives = [cpu.mem_speed_mts] + [int(part.split("-")[-1]) for part in cpu.mem_second.split(";") if part]
    if cpu.soldered:
        return rated, notes
    if cpu.registered and rated > max(alternatives):
        notes.append(("memory_slowed", {"rated": rated, "cpu": cpu.name, "runs": max(alternatives)}))
        return max(alternatives), notes
    two_deep = modules_per_channel(dimms.count, sockets, cpu.mem_channels) > 1
    believed = _DDR5_TWO_PER_CHANNEL_MTS if printed else _DDR5_TWO_PER_CHANNEL_MOST_MTS
    guessed = dimms.mts is None or rated > believed
    if guessed and two_deep and cpu.mem_type == "DDR5" and not cpu.server_memory:
        notes.append(("two_per_channel", {"runs": _DDR5_TWO_PER_CHANNEL_MTS}))
        return _DDR5_TWO_PER_CHANNEL_MTS, notes
    return rated, notes


def machine_from_parts(
    cpu_name: str, sockets: int, dimms: Dimms | None, ssd_gbs: float = 3.0, platform: Platform | None = None
) -> Machine:
    """Make a machine from the names of its parts. An unknown CPU is guessed from its memory, never refused.

    Impossible modules are corrected (plan/physics.py); the machine's notes say so.
    """
    counted = re.match(r"\s*(\d)\s*[x×*]\s+(?=\D)", cpu_name)
    if counted:
        # "2x E5-2680 v4" is how people write two of them.
        cpu_name, sockets = cpu_name[counted.end() :], max(sockets, int(counted[1]))
    cpu, close = find_cpu(cpu_name, all_cpus())
    if cpu is None:
        return _guessed(cpu_name, sockets, dimms, close, ssd_gbs)
    if dimms is None:
        return machine_from_cpu(cpu, sockets, None, ssd_gbs)
    here, settled, notes = settle(cpu, sockets, dimms, platform)
    machine = machine_from_cpu(here, sockets, settled, ssd_gbs)
    return replace(machine, notes=(*notes, *machine.notes))


def machine_from_cpu(
    cpu: Cpu, sockets: int, dimms: Dimms | None, ssd_gbs: float = 3.0, printed: bool = False
) -> Machine:
    """Make a machine with a CPU of the catalogue; without `modules`, all channels are full at rated speed."""
    notes: list[tuple[str, dict[str, object]]] = []
    if sockets > cpu.max_sockets:
        notes.append(("too_many_sockets", {"cpu": cpu.name, "most": cpu.max_sockets, "sockets": sockets}))
    total = cpu.mem_channels * sockets
    if dimms is None:
        channels, mts = total, cpu.mem_speed_mts
        if not cpu.soldered:
            notes.append(("memory_assumed", {"channels": total, "mts": mts}))
    else:
        channels = total if cpu.soldered else channels_filled(dimms.count, sockets, cpu.mem_channels)
        mts, slowed = speed_of(cpu, dimms, sockets, printed)
        notes += slowed
        if channels < total:
            notes.append(("channels_empty", {"empty": total - channels, "total": total}))
    peak = peak_gbs(channels, mts)
    limited = cpu.read_limit_gbs is not None and peak > cpu.read_limit_gbs * sockets
    if cpu.read_limit_gbs is not None and limited:
        peak = cpu.read_limit_gbs * sockets
        notes.append(("links_limit", {"cpu": cpu.name, "gbs": peak}))
    return Machine(
        name=cpu.name if sockets == 1 else f"{sockets} x {cpu.name}",
        cpu=cpu, kind=kind_of(cpu, sockets), sockets=sockets, cores=_working_cores(cpu) * sockets,
        ghz=cpu.all_core_ghz, isa=cpu.isa, microarch=cpu.microarch, channels=channels, channels_total=total, mts=mts,
        peak_gbs=peak, memory_bytes=dimms.nbytes if dimms else None, room_bytes=dimms.room_bytes if dimms else None,
        ssd_gbs=ssd_gbs, notes=tuple(notes), dimms=dimms,
        limited=limited,
    )  # fmt: skip


def _working_cores(cpu: Cpu) -> int:
    """Cores worth counting: small cores of a hybrid CPU do about half of a big one's work."""
    return cpu.big_cores + (cpu.cores - cpu.big_cores) // 2


def _guessed(name: str, sockets: int, dimms: Dimms | None, close: list[str], ssd_gbs: float) -> Machine:
    notes: list[tuple[str, dict[str, object]]] = [("cpu_unknown", {"cpu": name})]
    if close:
        notes.append(("cpu_close", {"names": listed(close)}))
    if dimms is None:
        hint = t(" Did you mean {close}?", close=either(close)) if close else ""
        raise SeventyError(
            "The catalogue has no CPU {name!r} and no --memory says what it has: add --memory 4x16@2400.{hint}",
            name=name, hint=hint,
        )
    if dimms.whole:
        # Two a socket, more where no module is so large, fewer where none is so small.
        count = min(max(2 * sockets, math.ceil(dimms.gb / LARGEST_GB)), max(1, int(dimms.gb)))
        dimms = replace(dimms, count=count, gb=dimms.gb / count, whole=False)
    per_socket = max(1, dimms.count // sockets)
    consumer = sockets == 1 and re.search(r"\b(core|ryzen|pentium|celeron|athlon|n\d{2,3})\b", name.lower())
    most = 2 if consumer and "threadripper" not in name.lower() else 12
    channels = sockets * max(n for n in _GUESSED_CHANNELS if n <= min(per_socket, most))
    mts = dimms.mts or 2400
    if dimms.mts is None:
        notes.append(("memory_assumed", {"channels": channels, "mts": mts}))
    kind = "two sockets" if sockets > 1 else "server" if channels > 2 else "desktop"
    return Machine(
        name=name, cpu=None, kind=kind, sockets=sockets, cores=8 * sockets, ghz=3.0, isa="avx2", microarch="",
        channels=channels, channels_total=channels, mts=mts, peak_gbs=peak_gbs(channels, mts),
        memory_bytes=dimms.nbytes, room_bytes=dimms.room_bytes, ssd_gbs=ssd_gbs, notes=tuple(notes), dimms=dimms,
    )  # fmt: skip
