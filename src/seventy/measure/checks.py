"""What holds this machine back: pure functions of what was read of it.

A check that finds nothing, or cannot tell, gives None.
"""

from collections.abc import Callable
from dataclasses import dataclass

from seventy.machine.settings import Settings
from seventy.machine.smbios import Slots
from seventy.machine.topology import Topology
from seventy.measure.profile import Profile
from seventy.runtime.memory import USUAL_CONTEXT, room
from seventy.sizes import module_size, size


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The model one wants to run.

    `nbytes` is its file's size, `need_bytes` what running it takes of memory; `read_gbs` is how fast its first part
    came from the disk, None if not tried.
    """

    name: str
    nbytes: int
    need_bytes: int
    read_gbs: float | None = None


@dataclass(frozen=True, slots=True)
class Readings:
    """The input of the checks.

    `memory_bytes` is the machine's memory, `room_bytes` the part of it that a model may take now (runtime/memory.py).
    `profile` is the stored measurement, if there is one.
    """

    machine: Topology
    settings: Settings
    slots: Slots
    memory_bytes: int
    room_bytes: int
    profile: Profile | None = None
    model: ModelFile | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that costs speed: what was seen, why it costs, and what to do (one command or one act).

    `slower` is by how many times it slows generating: a low and a middle estimate, (1, 1) if it only slows loading.
    """

    title: str
    seen: str
    why: str
    fix: str
    slower: tuple[float, float]

    def __post_init__(self) -> None:
        assert 1 <= self.slower[0] <= self.slower[1], f"{self.title}: {self.slower}"


_GOVERNOR_FILES = "/sys/devices/system/cpu/cpu*/cpufreq"


def governor(r: Readings) -> Finding | None:
    """Check the frequency governor. If the firmware chooses the clock (energy preferences exist), `powersave` is
    normal.
    """
    names = [name for name in r.settings.governors if name != "performance"]
    managed = bool(r.settings.energy_preferences)
    if not names or (managed and names == ["powersave"]):
        return None
    # acpi-cpufreq's powersave stays at the lowest clock, about half; the others only rise late.
    slower = (1.2, 1.8) if "powersave" in names else (1.0, 1.05)
    return Finding(
        "CPU governor",
        f"the governor is {', '.join(names)}",
        "the cores run below their clock, or reach it late after every pause",
        f"echo performance | sudo tee {_GOVERNOR_FILES}/scaling_governor",
        slower,
    )


def energy_preference(r: Readings) -> Finding | None:
    names = [name for name in r.settings.energy_preferences if name in ("power", "balance_power")]
    if not names:
        return None
    return Finding(
        "Energy preference",
        f"the CPU is asked to prefer {', '.join(names)}",
        "it holds its clock, and on some machines the memory controller's, low",
        f"echo performance | sudo tee {_GOVERNOR_FILES}/energy_performance_preference",
        (1.02, 1.15),
    )


def boost(r: Readings) -> Finding | None:
    if r.settings.boost is not False:
        return None
    return Finding(
        "Turbo",
        "the CPU may not go above its base clock",
        "prompts are bound by the clock, and so is reading memory with few cores",
        "echo 0 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo (Intel), "
        "echo 1 | sudo tee /sys/devices/system/cpu/cpufreq/boost (AMD, older Intel)",
        (1.0, 1.05),
    )


def power_profile(r: Readings) -> Finding | None:
    if r.settings.platform_profile not in ("low-power", "quiet", "cool"):
        return None
    return Finding(
        "Power profile",
        f"the platform profile is {r.settings.platform_profile}",
        "the machine caps its power, and with it the clock under load",
        "echo performance | sudo tee /sys/firmware/acpi/platform_profile",
        (1.05, 1.3),
    )


def battery(r: Readings) -> Finding | None:
    if not r.settings.on_battery:
        return None
    return Finding(
        "Battery",
        "the machine runs on its battery",
        "most laptops halve their power then",
        "plug it in",
        (1.05, 1.4),
    )


def huge_pages(r: Readings) -> Finding | None:
    if r.settings.transparent_huge_pages != "never":
        return None
    return Finding(
        "Huge pages",
        "transparent huge pages are off (never)",
        "weights lie in 4 KB pages, ten million for a 70B, and the CPU looks up one for every 64 cache lines",
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        (1.02, 1.15),
    )


def numa_balancing(r: Readings) -> Finding | None:
    if not r.settings.numa_balancing or len(r.machine.nodes) < 2:
        return None
    return Finding(
        "NUMA balancing",
        f"the kernel moves pages between {len(r.machine.nodes)} nodes by itself",
        "it unmaps weights again and again to see who reads them, and they lie where they should already",
        "sudo sysctl kernel.numa_balancing=0",
        (1.02, 1.1),
    )


def swap(r: Readings) -> Finding | None:
    used = r.settings.swap_used_bytes
    # A little of what nobody uses lies in swap on every machine.
    if used < max(256 << 20, r.memory_bytes // 50):
        return None
    return Finding(
        "Swap",
        f"{size(used)} are in swap",
        "memory was short; weights that go there are read from the disk for every token",
        "close what is not needed, then: sudo swapoff -a && sudo swapon -a",
        (1.0, 1.5),
    )


def channels(r: Readings) -> Finding | None:
    """Empty memory channels; without the board's names for them, empty slots."""
    slots = r.slots
    if r.settings.hypervisor or not slots.filled or len(slots.filled) == len(slots.slots):
        return None
    if slots.channels:
        if slots.filled_channels == slots.channels:
            return None
        factor = slots.channels / slots.filled_channels
        empty = sorted({slot.channel for slot in slots.slots} - {slot.channel for slot in slots.filled})
        return Finding(
            "Memory channels",
            f"{slots.filled_channels} of {slots.channels} memory channels have a DIMM; empty: {', '.join(empty)}",
            "every token reads all weights, and each channel adds its own bandwidth",
            f"put a DIMM of the same kind into every empty channel ({slots.filled[0].kind or 'see the board'}); "
            "see: seventy plan",
            (0.85 * factor if 0.85 * factor > 1 else 1.0, factor),
        )
    # Most boards have two slots a channel or one: fewer than half filled leaves a channel empty for certain.
    filled, total = len(slots.filled), len(slots.slots)
    if 2 * filled >= total:
        return None
    return Finding(
        "Memory channels",
        f"{filled} of {total} memory slots are filled, and the board does not name their channels",
        "every token reads all weights, and each channel adds its own bandwidth",
        "look in the board's manual which slots are which channel, and fill one slot of every channel",
        (1.0, max(1.0, total / 2 / filled)),
    )


def uneven_channels(r: Readings) -> Finding | None:
    sizes: dict[str, int] = {}
    for slot in r.slots.filled:
        if slot.channel:
            sizes[slot.channel] = sizes.get(slot.channel, 0) + slot.nbytes
    if r.settings.hypervisor or len(set(sizes.values())) < 2:
        return None
    text = ", ".join(f"{channel} {module_size(nbytes)}" for channel, nbytes in sorted(sizes.items()))
    return Finding(
        "Uneven channels",
        f"the channels hold different amounts: {text}",
        "the memory beyond the smallest is interleaved over fewer channels, and slower",
        "give every channel the same DIMMs",
        (1.0, 1.2),
    )


def memory_speed(r: Readings) -> Finding | None:
    slow = [slot for slot in r.slots.filled if 0 < slot.mts < 0.97 * slot.rated_mts]
    if r.settings.hypervisor or not slow:
        return None
    slot = max(slow, key=lambda slot: slot.rated_mts / slot.mts)
    return Finding(
        "Memory speed",
        f"{slot.name} runs at {slot.mts} MT/s and is rated {slot.rated_mts}",
        "bandwidth is proportional to it",
        "set the speed (or the XMP/EXPO profile) in the firmware setup; the CPU's own limit stays: see: seventy plan",
        (1.0, slot.rated_mts / slot.mts),
    )


def quota(r: Readings) -> Finding | None:
    machine = r.machine
    cores = sum(any(cpu in machine.allowed for cpu in core.cpus) for core in machine.cores)
    if machine.quota is None or machine.quota >= cores:
        return None
    return Finding(
        "CPU quota",
        f"the control group grants {machine.quota:g} CPUs' time, and there are {cores} cores",
        "fewer cores multiply, and all threads stop together when the time is used up",
        "raise the container's limit (docker update --cpus, the pod's limits.cpu)",
        (1.0, cores / max(machine.quota, 0.5)),
    )


def affinity(r: Readings) -> Finding | None:
    machine = r.machine
    cores = sum(any(cpu in machine.allowed for cpu in core.cpus) for core in machine.cores)
    if cores == len(machine.cores):
        return None
    return Finding(
        "CPU affinity",
        f"this process may use {cores} of {len(machine.cores)} cores",
        "prompts need all of them, and memory most",
        "start it without taskset, or widen the container's cpuset (docker update --cpuset-cpus)",
        (1.0, max(1.0, min(4.0, len(machine.cores) / max(cores, 1)) ** 0.5)),
    )


def virtual_machine(r: Readings) -> Finding | None:
    if not r.settings.hypervisor or r.settings.hypervisor == "WSL":
        return None
    cpus = sum(len(core.cpus) for core in r.machine.cores)
    spread = _spread(r.profile)
    seen = f"this is a virtual machine ({r.settings.hypervisor}) with {cpus} CPUs"
    if spread > 1.15:
        seen += f", whose memory bandwidth varied by {100 * (spread - 1):.0f} % while it was measured"
    return Finding(
        "Virtual machine",
        seen,
        "a virtual CPU may be half a core, and the host's memory channels are shared with its neighbours",
        "seventy measure, at different hours, shows what they leave",
        (1.0, min(2.0, max(1.1, spread))),
    )


def _spread(profile: Profile | None) -> float:
    """Best over typical bandwidth: what others took, where much above 1."""
    if profile is None:
        return 1.0
    row = max(profile.bandwidth, key=lambda row: row.best_gbs)
    return row.best_gbs / row.typical_gbs


def bandwidth_reached(r: Readings) -> Finding | None:
    """Far less read than the channels can give points at firmware settings, or a name of a channel misread."""
    theoretical = r.slots.theoretical_gbs
    if theoretical is None or r.profile is None or r.settings.hypervisor:
        return None
    share = r.profile.read_bandwidth_gbs / theoretical
    if share > 0.55:
        return None
    return Finding(
        "Memory bandwidth",
        f"{r.profile.read_bandwidth_gbs:.0f} GB/s were read where the channels give {theoretical:.0f}",
        "75-90 % is usual with all cores; something else was busy, or few cores were used",
        "seventy measure with nothing else running; then look at the firmware's memory and power settings",
        (1.0, 0.8 / share),
    )


def memory_room(r: Readings) -> Finding | None:
    if r.model is not None:
        if r.model.need_bytes <= r.room_bytes:
            return None
        free = f"{size(r.room_bytes)} of {size(r.memory_bytes)} are free for it"
        never = r.model.need_bytes > room(r.memory_bytes)
        return Finding(
            "Memory",
            f"{r.model.name} needs {size(r.model.need_bytes)} with a context of {USUAL_CONTEXT}; {free}",
            "seventy refuses to load it, and other engines would read what does not fit from the disk for every token",
            "add memory (seventy plan), or take a smaller quantisation"
            if never
            else "close other programs, or take a smaller quantisation",
            (1.0, 10.0) if never else (1.0, 2.0),
        )
    if r.room_bytes > 0.25 * r.memory_bytes:
        return None
    return Finding(
        "Memory",
        f"{size(r.room_bytes)} of {size(r.memory_bytes)} are free for a model",
        "a model that does not fit is read from the disk for every token",
        "close what is not needed: ps -eo rss,comm --sort=-rss | head",
        (1.0, 1.5),
    )


def slow_disk(r: Readings) -> Finding | None:
    model = r.model
    if model is None or model.read_gbs is None or model.read_gbs >= 0.4:
        return None
    minutes = model.nbytes / model.read_gbs / 60e9
    return Finding(
        "Disk",
        f"{model.name} is read at {1000 * model.read_gbs:.0f} MB/s",
        f"loading it takes {minutes:.1f} minutes" if minutes >= 1 else f"loading it takes {60 * minutes:.0f} seconds",
        "move it to an SSD, and name that folder in SEVENTY_MODELS",
        (1.0, 1.0),
    )


# More of a last-level cache than this belongs to no core there is (Genoa-X has 96 MiB for 8).
_MOST_CACHE_OF_A_CORE = 32 << 20


def doubtful_cache(nbytes: int, cores: int, hypervisor: str) -> bool:
    """Return whether a last-level cache is too large for so few cores: a hypervisor may report all of its host's."""
    return bool(hypervisor) and nbytes > _MOST_CACHE_OF_A_CORE * cores


CHECKS: tuple[Callable[[Readings], Finding | None], ...] = (
    channels, uneven_channels, memory_speed, bandwidth_reached, memory_room, swap, huge_pages, numa_balancing, governor,
    energy_preference, boost, power_profile, battery, quota, affinity, virtual_machine, slow_disk,
)  # fmt: skip


def find(readings: Readings) -> list[Finding]:
    """Run all checks; return their findings, the most expensive first."""
    found = [finding for check in CHECKS if (finding := check(readings))]
    return sorted(found, key=lambda finding: finding.slower[::-1], reverse=True)


def unknown(r: Readings) -> list[str]:
    """List what could not be checked, and how it could be."""
    texts = []
    if r.slots.problem == "permission":
        texts.append("DIMM slots, their speed and empty channels: readable by root only; sudo seventy doctor")
    elif r.slots.problem:
        where = "this virtual machine" if r.settings.hypervisor else "this system"
        texts.append(f"DIMM slots, their speed and empty channels: {where} does not show them (no SMBIOS table)")
    elif r.slots.filled and not r.slots.channels:
        texts.append("which slot is which memory channel: the board's names do not tell; see its manual")
    if not r.settings.governors and not r.settings.hypervisor:
        texts.append("the CPU's governor: the system does not show it")
    cache, cores = r.machine.last_level_cache_bytes, len(r.machine.usable)
    if doubtful_cache(cache, cores, r.settings.hypervisor):
        texts.append(
            f"the last-level cache: {module_size(cache)} for {cores} cores, says the hypervisor, which is doubtful"
        )
    if r.profile is None:
        texts.append("whether memory is as fast as it should be: not measured yet; seventy measure")
    return texts
