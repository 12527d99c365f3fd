"""What holds this machine back: pure functions of what was read of it.

A check that finds nothing, or cannot tell, gives None.
"""

from collections.abc import Callable
from dataclasses import dataclass

from seventy.language import t
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
    """Check the frequency governor. `powersave` is normal if the firmware chooses the clock."""
    names = [name for name in r.settings.governors if name != "performance"]
    managed = bool(r.settings.energy_preferences)
    if not names or (managed and names == ["powersave"]):
        return None
    # acpi-cpufreq's powersave stays at the lowest clock, about half; the others only rise late.
    slower = (1.2, 1.8) if "powersave" in names else (1.0, 1.05)
    return Finding(
        t("CPU governor"),
        t("the governor is {names}", names=", ".join(names)),
        t("the cores run below their clock, or reach it late after every pause"),
        f"echo performance | sudo tee {_GOVERNOR_FILES}/scaling_governor",
        slower,
    )


def energy_preference(r: Readings) -> Finding | None:
    names = [name for name in r.settings.energy_preferences if name in ("power", "balance_power")]
    if not names:
        return None
    return Finding(
        t("Energy preference"),
        t("the CPU is asked to prefer {names}", names=", ".join(names)),
        t("it holds its clock, and on some machines the memory controller's, low"),
        f"echo performance | sudo tee {_GOVERNOR_FILES}/energy_performance_preference",
        (1.02, 1.15),
    )


def boost(r: Readings) -> Finding | None:
    if r.settings.boost is not False:
        return None
    return Finding(
        t("Turbo"),
        t("the CPU may not go above its base clock"),
        t("prompts are bound by the clock, and so is reading memory with few cores"),
        t("echo 0 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo (Intel), "
          "echo 1 | sudo tee /sys/devices/system/cpu/cpufreq/boost (AMD, older Intel)"),
        (1.0, 1.05),
    )


def power_profile(r: Readings) -> Finding | None:
    if r.settings.platform_profile not in ("low-power", "quiet", "cool"):
        return None
    return Finding(
        t("Power profile"),
        t("the platform profile is {platform_profile}", platform_profile=r.settings.platform_profile),
        t("the machine caps its power, and with it the clock under load"),
        "echo performance | sudo tee /sys/firmware/acpi/platform_profile",
        (1.05, 1.3),
    )


def battery(r: Readings) -> Finding | None:
    if not r.settings.on_battery:
        return None
    return Finding(
        t("Battery"),
        t("the machine runs on its battery"),
        t("most laptops halve their power then"),
        t("plug it in"),
        (1.05, 1.4),
    )


def huge_pages(r: Readings) -> Finding | None:
    if r.settings.transparent_huge_pages != "never":
        return None
    return Finding(
        t("Huge pages"),
        t("transparent huge pages are off (never)"),
        t("weights lie in 4 KB pages, ten million for a 70B, and the CPU looks up one for every 64 cache lines"),
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        (1.02, 1.15),
    )


def numa_balancing(r: Readings) -> Finding | None:
    if not r.settings.numa_balancing or len(r.machine.nodes) < 2:
        return None
    return Finding(
        t("NUMA balancing"),
        t("the kernel moves pages between {nodes_count} nodes by itself", nodes_count=len(r.machine.nodes)),
        t("it unmaps weights again and again to see who reads them, and they lie where they should already"),
        "sudo sysctl kernel.numa_balancing=0",
        (1.02, 1.1),
    )


def swap(r: Readings) -> Finding | None:
    used = r.settings.swap_used_bytes
    # A little of what nobody uses lies in swap on every machine.
    if used < max(256 << 20, r.memory_bytes // 50):
        return None
    return Finding(
        t("Swap"),
        t("{used} are in swap", used=size(used)),
        t("memory was short; weights that go there are read from the disk for every token"),
        t("close what is not needed, then: sudo swapoff -a && sudo swapon -a"),
        (1.0, 1.5),
    )


def channels(r: Readings) -> Finding | None:
    """Check for empty memory channels, or for empty slots where the board does not name channels."""
    slots = r.slots
    if r.settings.hypervisor or not slots.filled or len(slots.filled) == len(slots.slots):
        return None
    if slots.channels:
        if slots.filled_channels == slots.channels:
            return None
        factor = slots.channels / slots.filled_channels
        empty = sorted({slot.channel for slot in slots.slots} - {slot.channel for slot in slots.filled})
        return Finding(
            t("Memory channels"),
            t(
                "{filled_channels} of {channels} memory channels have a DIMM; empty: {empty}",
                filled_channels=slots.filled_channels, channels=slots.channels, empty=", ".join(empty),
            ),
            t("every token reads all weights, and each channel adds its own bandwidth"),
            t(
                "put a DIMM of the same kind into every empty channel ({kind}); see: seventy plan",
                kind=slots.filled[0].kind or t("see the board"),
            ),
            (0.85 * factor if 0.85 * factor > 1 else 1.0, factor),
        )
    # Most boards have two slots a channel or one: fewer than half filled leaves a channel empty for certain.
    filled, total = len(slots.filled), len(slots.slots)
    if 2 * filled >= total:
        return None
    return Finding(
        t("Memory channels"),
        t(
            "{filled} of {total} memory slots are filled, and the board does not name their channels",
            filled=filled, total=total,
        ),
        t("every token reads all weights, and each channel adds its own bandwidth"),
        t("look in the board's manual which slots are which channel, and fill one slot of every channel"),
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
        t("Uneven channels"),
        t("the channels hold different amounts: {text}", text=text),
        t("the memory beyond the smallest is interleaved over fewer channels, and slower"),
        t("give every channel the same DIMMs"),
        (1.0, 1.2),
    )


def memory_speed(r: Readings) -> Finding | None:
    slow = [slot for slot in r.slots.filled if 0 < slot.mts < 0.97 * slot.rated_mts]
    if r.settings.hypervisor or not slow:
        return None
    slot = max(slow, key=lambda slot: slot.rated_mts / slot.mts)
    return Finding(
        t("Memory speed"),
        t("{name} runs at {mts} MT/s and is rated {rated_mts}", name=slot.name, mts=slot.mts, rated_mts=slot.rated_mts),
        t("bandwidth is proportional to it"),
        t(
            "set the speed (or the XMP/EXPO profile) in the firmware setup; the CPU's own limit stays: see: seventy "
            "plan"
        ),
        (1.0, slot.rated_mts / slot.mts),
    )


def quota(r: Readings) -> Finding | None:
    machine = r.machine
    cores = sum(any(cpu in machine.allowed for cpu in core.cpus) for core in machine.cores)
    if machine.quota is None or machine.quota >= cores:
        return None
    return Finding(
        t("CPU quota"),
        t(
            "the control group grants {quota:g} CPUs' time, and there are {cores} cores",
            quota=machine.quota, cores=cores,
        ),
        t("fewer cores multiply, and all threads stop together when the time is used up"),
        t("raise the container's limit (docker update --cpus, the pod's limits.cpu)"),
        (1.0, cores / max(machine.quota, 0.5)),
    )


def affinity(r: Readings) -> Finding | None:
    machine = r.machine
    cores = sum(any(cpu in machine.allowed for cpu in core.cpus) for core in machine.cores)
    if cores == len(machine.cores):
        return None
    return Finding(
        t("CPU affinity"),
        t("this process may use {cores} of {cores_count} cores", cores=cores, cores_count=len(machine.cores)),
        t("prompts need all of them, and memory most"),
        t("start it without taskset, or widen the container's cpuset (docker update --cpuset-cpus)"),
        (1.0, max(1.0, min(4.0, len(machine.cores) / max(cores, 1)) ** 0.5)),
    )


def virtual_machine(r: Readings) -> Finding | None:
    if not r.settings.hypervisor or r.settings.hypervisor == "WSL":
        return None
    cpus = sum(len(core.cpus) for core in r.machine.cores)
    spread = _spread(r.profile)
    kind = t(r.settings.hypervisor)
    seen = t("this is a virtual machine ({hypervisor}) with {cpus} CPUs", hypervisor=kind, cpus=cpus)
    if spread > 1.15:
        seen += t(", whose memory bandwidth varied by {spread:.0f} % while it was measured", spread=100 * (spread - 1))
    return Finding(
        t("Virtual machine"),
        seen,
        t("a virtual CPU may be half a core, and the host's memory channels are shared with its neighbours"),
        t("seventy measure, at different hours, shows what they leave"),
        (1.0, min(2.0, max(1.1, spread))),
    )


def _spread(profile: Profile | None) -> float:
    """Best over typical bandwidth: what others took, where much above 1."""
    if profile is None:
        return 1.0
    row = max(profile.bandwidth, key=lambda row: row.best_gbs)
    return row.best_gbs / row.typical_gbs


def bandwidth_reached(r: Readings) -> Finding | None:
    """Check the share of the channels' bandwidth that is reached; a low one points at firmware settings."""
    theoretical = r.slots.theoretical_gbs
    if theoretical is None or r.profile is None or r.settings.hypervisor:
        return None
    share = r.profile.read_bandwidth_gbs / theoretical
    if share > 0.55:
        return None
    return Finding(
        t("Memory bandwidth"),
        t(
            "{read_bandwidth_gbs:.0f} GB/s were read where the channels give {theoretical:.0f}",
            read_bandwidth_gbs=r.profile.read_bandwidth_gbs, theoretical=theoretical,
        ),
        t("75-90 % is usual with all cores; something else was busy, or few cores were used"),
        t("seventy measure with nothing else running; then look at the firmware's memory and power settings"),
        (1.0, 0.8 / share),
    )


def memory_room(r: Readings) -> Finding | None:
    if r.model is not None:
        if r.model.need_bytes <= r.room_bytes:
            return None
        free = t(
            "{room_bytes} of {memory_bytes} are free for it",
            room_bytes=size(r.room_bytes), memory_bytes=size(r.memory_bytes),
        )
        never = r.model.need_bytes > room(r.memory_bytes)
        return Finding(
            t("Memory"),
            t(
                "{name} needs {need_bytes} with a context of {usual_context}; {free}",
                name=r.model.name, need_bytes=size(r.model.need_bytes), usual_context=USUAL_CONTEXT, free=free,
            ),
            t(
                "seventy refuses to load it, and other engines would read what does not fit from the disk for every "
                "token"
            ),
            t("add memory (seventy plan), or take a smaller quantisation")
            if never
            else t("close other programs, or take a smaller quantisation"),
            (1.0, 10.0) if never else (1.0, 2.0),
        )
    if r.room_bytes > 0.25 * r.memory_bytes:
        return None
    return Finding(
        t("Memory"),
        t(
            "{room_bytes} of {memory_bytes} are free for a model",
            room_bytes=size(r.room_bytes), memory_bytes=size(r.memory_bytes),
        ),
        t("a model that does not fit is read from the disk for every token"),
        t("close what is not needed: ps -eo rss,comm --sort=-rss | head"),
        (1.0, 1.5),
    )


def slow_disk(r: Readings) -> Finding | None:
    model = r.model
    if model is None or model.read_gbs is None or model.read_gbs >= 0.4:
        return None
    minutes = model.nbytes / model.read_gbs / 60e9
    return Finding(
        t("Disk"),
        t("{name} is read at {read_gbs:.0f} MB/s", name=model.name, read_gbs=1000 * model.read_gbs),
        t(
            "loading it takes {minutes:.1f} minutes",
            minutes=minutes,
        ) if minutes >= 1 else t(
            "loading it takes {minutes:.0f} seconds",
            minutes=60 * minutes,
        ),
        t("move it to an SSD, and name that folder in SEVENTY_MODELS"),
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
        texts.append(t("DIMM slots, their speed and empty channels: readable by root only; sudo seventy doctor"))
    elif r.slots.problem:
        where = t("this virtual machine") if r.settings.hypervisor else t("this system")
        texts.append(t(
            "DIMM slots, their speed and empty channels: {where} does not show them (no SMBIOS table)",
            where=where,
        ))
    elif r.slots.filled and not r.slots.channels:
        texts.append(t("which slot is which memory channel: the board's names do not tell; see its manual"))
    if not r.settings.governors and not r.settings.hypervisor:
        texts.append(t("the CPU's governor: the system does not show it"))
    cache, cores = r.machine.last_level_cache_bytes, len(r.machine.usable)
    if doubtful_cache(cache, cores, r.settings.hypervisor):
        texts.append(
            t(
                "the last-level cache: {cache} for {cores} cores, says the hypervisor, which is doubtful",
                cache=module_size(cache), cores=cores,
            )
        )
    if r.profile is None:
        texts.append(t("whether memory is as fast as it should be: not measured yet; seventy measure"))
    return texts
