"""What modules a machine can really hold: impossible sizes, speeds and counts are corrected, and that is said.

Limits are those of modules that are sold (plan/memory.py) and of the platform where one is named; where none is,
desktop boards have two slots a channel and servers three.
"""

from collections.abc import Iterator
from dataclasses import replace

from seventy.catalog.cpus import Cpu
from seventy.catalog.platforms import Platform
from seventy.plan.memory import MODULE_GB, SOLD_MTS, Dimms

Note = tuple[str, dict[str, object]]

# Modules that no source names: one of these a channel is assumed, GB.
ASSUMED_GB = {"DDR3": 8.0, "DDR4": 16.0, "DDR5": 16.0}
# Below this MT/s a CPU that takes DDR4 and DDR5 is taken to hold DDR4.
_DDR4_MOST_MTS = 4000


def kinds(cpu: Cpu) -> list[str]:
    """List the kinds of memory a CPU takes, the usual one first."""
    return [cpu.mem_type, *(part.split("-")[0] for part in cpu.mem_second.split(";") if part)]


def form_of(cpu: Cpu, platform: Platform | None = None) -> str:
    """Return the form of its modules: RDIMM, UDIMM, SODIMM or soldered."""
    if platform is not None and (platform.dimm_form != "RDIMM" or cpu.registered):
        return platform.dimm_form
    if cpu.soldered:
        return "soldered"
    if cpu.registered:
        return "RDIMM"
    return "SODIMM" if cpu.socket.startswith(("FP", "FL", "FCBGA", "mobile")) else "UDIMM"


def with_memory(cpu: Cpu, kind: str) -> Cpu:
    """Return the CPU as it works with one of the kinds of memory it takes."""
    if cpu.mem_type == kind:
        return cpu
    second = next((part for part in cpu.mem_second.split(";") if part.startswith(kind + "-")), None)
    if second is None:
        return cpu
    return replace(cpu, mem_type=kind, mem_speed_mts=int(second.split("-")[-1]), mem_second="")


def slots_of(cpu: Cpu, sockets: int, platform: Platform | None = None) -> int:
    """Return the number of DIMM slots of the fitted sockets."""
    if platform is not None:
        return platform.dimm_slots * sockets // platform.sockets
    each = 3 if cpu.registered and cpu.mem_type != "DDR5" else 2
    return each * max(1, round(cpu.mem_channels)) * sockets if form_of(cpu) != "SODIMM" else 2 * sockets


def sizes_of(cpu: Cpu, platform: Platform | None = None) -> tuple[int, ...]:
    """Return the sizes in GB of the modules that fit."""
    form = form_of(cpu, platform)
    return MODULE_GB.get((cpu.mem_type, "RDIMM" if form == "LRDIMM" else form), ())


def kind_in(cpu: Cpu, dimms: Dimms, platform: Platform | None = None) -> str:
    """Return the kind of memory: the platform's, else the stated one, else the one of the stated speed."""
    if platform is not None and platform.mem_type in kinds(cpu):
        return platform.mem_type
    if dimms.kind in kinds(cpu):
        return dimms.kind
    if cpu.soldered:
        # Mobile chips that also take modules: those run slower than what is soldered.
        slotted = next((part for part in cpu.mem_second.split(";") if part and not part.startswith("LP")), None)
        if slotted and dimms.mts is not None and dimms.mts <= int(slotted.split("-")[1]):
            return slotted.split("-")[0]
    if dimms.mts is not None and dimms.mts <= _DDR4_MOST_MTS and "DDR4" in kinds(cpu):
        return "DDR4"
    return cpu.mem_type


def assumed(cpu: Cpu, sockets: int) -> Dimms:
    """Return the memory assumed if none is stated: one module per channel."""
    channels = max(1, round(cpu.mem_channels * sockets))
    return Dimms(channels, ASSUMED_GB.get(cpu.mem_type, 16.0), None)


def settle(
    cpu: Cpu, sockets: int, dimms: Dimms, platform: Platform | None = None
) -> tuple[Cpu, Dimms, list[Note]]:
    """Correct modules to what fits; return the CPU with that kind of memory, the modules, and what was corrected."""
    cpu_here = with_memory(cpu, kind_in(cpu, dimms, platform))
    if cpu_here.soldered:
        return cpu, dimms, []
    notes: list[Note] = []
    if dimms.kind and dimms.kind != cpu_here.mem_type:
        notes.append(("memory_kind", {"cpu": cpu.name, "given": dimms.kind, "takes": cpu_here.mem_type}))
    mts = dimms.mts
    slowest, fastest = SOLD_MTS[cpu_here.mem_type]
    if mts is not None and not slowest <= mts <= fastest:
        mts = cpu_here.mem_speed_mts
        notes.append(("memory_speed", {"given": dimms.mts, "kind": cpu_here.mem_type, "runs": mts}))
    sizes, slots = sizes_of(cpu_here, platform), slots_of(cpu_here, sockets, platform)
    found = replace(dimms, mts=mts, kind=cpu_here.mem_type)
    if dimms.whole:
        count, gb = _spread(dimms.gb, sizes, slots, max(1, round(cpu_here.mem_channels * sockets)))
        found = replace(found, count=count, gb=gb, whole=False)
        notes.append(("memory_spread", {"total": dimms.gb, "dimms": str(found)}))
    elif dimms.form == "mixed":
        notes.append(("memory_mixed", {"dimms": str(found)}))
    elif sizes and dimms.gb not in sizes and (pair := _mixture(dimms, sizes)):
        values = {"gb": dimms.gb, "kind": f"{cpu_here.mem_type} {form_of(cpu_here, platform)}"}
        notes.append(("memory_pairs", {**values, "small": pair[0], "large": pair[1]}))
    elif sizes and dimms.gb not in sizes:
        found = _real_modules(found, sizes, slots)
        values = {"gb": dimms.gb, "kind": f"{cpu_here.mem_type} {form_of(cpu_here, platform)}", "dimms": str(found)}
        notes.append(("memory_size", values))
    if found.count > slots > 0:
        found = replace(found, count=slots)
        notes.append(("memory_slots", {"slots": slots, "dimms": str(found)}))
    most = platform.max_mem_gb * sockets / platform.sockets if platform else (cpu.max_mem_gb or 0) * sockets
    if most and found.total_gb > most:
        name = platform.name if platform else cpu.name
        notes.append(("memory_most", {"name": name, "most": float(most), "have": found.total_gb}))
    return cpu_here, found, notes


def _mixture(dimms: Dimms, sizes: tuple[int, ...]) -> tuple[int, int] | None:
    """Two sizes that make this one on average, where there are modules enough for both."""
    pairs = [(a, b) for a in sizes for b in sizes if a < b and a + b == 2 * dimms.gb]
    return min(pairs, key=lambda pair: pair[1] - pair[0]) if dimms.count > 1 and pairs else None


def _ways(total: float, sizes: tuple[int, ...], slots: int, channels: int) -> Iterator[tuple[int, float]]:
    """Equal modules that make a total: one a channel, then two and three, then fewer than channels."""
    counts = [channels, 2 * channels, 3 * channels, *range(min(channels, slots), 0, -1)]
    for count in counts:
        if count <= slots and total / count in sizes:
            yield count, total / count


def _spread(total: float, sizes: tuple[int, ...], slots: int, channels: int) -> tuple[int, float]:
    """Modules and GB each of a bare total, every channel filled; the mean of unequal ones where no size divides it."""
    way = next(_ways(total, sizes, slots, channels), None)
    if way is not None:
        return way
    # No module is smaller than the smallest that is sold.
    count = min(channels, slots, max(1, int(total // min(sizes))))
    return (count, total / count) if total / count <= max(sizes) else (slots, min(total / slots, float(max(sizes))))


def _real_modules(dimms: Dimms, sizes: tuple[int, ...], slots: int) -> Dimms:
    """The same total in modules that exist, as near in number as slots allow; else modules of the nearest size."""
    if dimms.gb > max(sizes):
        for count in range(dimms.count, slots + 1):
            if dimms.total_gb / count in sizes:
                return replace(dimms, count=count, gb=dimms.total_gb / count)
        return replace(dimms, count=slots, gb=float(max(sizes)))
    return replace(dimms, gb=float(min(sizes, key=lambda size: max(size / dimms.gb, dimms.gb / size))))
