"""The machines a person has, from words such as "Z440 + E5-2680 v4 + 4x16@2400", with what had to be assumed."""

from dataclasses import dataclass, replace

from seventy.catalog.cpus import Cpu, all_cpus, find_cpu
from seventy.catalog.platforms import Platform
from seventy.catalog.prices import all_prices
from seventy.errors import SeventyError
from seventy.language import either, listed, t
from seventy.plan.builds import cpus_for
from seventy.plan.described import Description, read
from seventy.plan.machine import Machine, machine_from_parts
from seventy.plan.memory import Dimms, parse_dimms
from seventy.plan.physics import Note, assumed

_EXAMPLE = '"HP Z440 + E5-2680 v4 + 1x64@2400"'


@dataclass(frozen=True, slots=True)
class Owned:
    """A machine at hand: `platform` bounds its sockets and slots where it is known, `dimms` None where nobody knows."""

    machine: Machine
    dimms: Dimms | None
    platform: Platform | None = None


def owned(text: str) -> list[Owned]:
    """Return every machine a text describes. Raises SeventyError if it names no CPU and no platform."""
    found = [each for each in read(text) if not each.empty]
    if not found:
        raise SeventyError(
            "no machine is named in {text!r}; write platform, CPU and memory, as in {example}",
            text=text, example=_EXAMPLE,
        )
    return [_owned(each, text) for each in found]


def _owned(said: Description, text: str) -> Owned:
    notes: list[Note] = []
    if said.platform_name:
        notes.append(("platform_unknown", {"platform": said.platform_name}))
        if said.close_platforms:
            notes.append(("cpu_close", {"names": listed(said.close_platforms)}))
    name = _cpu_name(said, text, notes)
    platform, sockets = _board(said, notes)
    dimms = said.dimms or _unsaid(said, name, sockets, platform, notes)
    machine = machine_from_parts(name, sockets, dimms, platform=platform)
    return Owned(replace(machine, notes=(*notes, *machine.notes)), machine.dimms, platform)


def _cpu_name(said: Description, text: str, notes: list[Note]) -> str:
    """The name of the CPU to predict with: the one that was said, else what its platform usually has."""
    if said.cpu is not None:
        return said.cpu.name
    if said.cpu_name:
        return _stand_in(said, notes)
    if said.platform is not None:
        cpu = usual_cpu(said.platform)
        notes.append(("cpu_assumed", {"platform": said.platform.name, "cpu": cpu.name}))
        return cpu.name
    if said.platform_name:
        close = t(" Did you mean {close}?", close=either(said.close_platforms)) if said.close_platforms else ""
        raise SeventyError(
            'The catalogue has no platform {name!r}, so its CPU must be said too, as in "{name} + 2x E5-2680 v4 + '
            '8x16".{close}',
            name=said.platform_name, close=close,
        )  # fmt: skip
    raise SeventyError(
        "{text!r} names no CPU or platform of the catalogue; write both, as in {example}", text=text, example=_EXAMPLE
    )


def _board(said: Description, notes: list[Note]) -> tuple[Platform | None, int]:
    """The platform, if the CPU goes into it, and how many CPUs are in it."""
    platform, sockets = said.platform, said.sockets or 1
    if platform is not None and said.cpu is not None and said.cpu not in cpus_for(platform, all_cpus()):
        notes.append(("cpu_misfit", {"platform": platform.name, "cpu": said.cpu.name, "socket": said.cpu.socket}))
        return None, sockets
    if platform is not None and sockets > platform.sockets:
        notes.append(("platform_sockets", {"platform": platform.name, "sockets": platform.sockets}))
        return platform, platform.sockets
    return platform, sockets


def _unsaid(
    said: Description, name: str, sockets: int, platform: Platform | None, notes: list[Note]
) -> Dimms | None:
    """The memory to assume, or what the platform is sold with; None where the CPU is not of the catalogue either.

    Raises SeventyError where the machine is sold with different amounts.
    """
    cpu = next((each for each in all_cpus() if each.name == name), None)
    if cpu is not None and not cpu.soldered:
        dimms, known = assumed(cpu, sockets), False
    elif platform is not None and platform.dimm_form == "soldered":
        dimms, known = Dimms(1, float(platform.max_mem_gb), None), f"{platform.max_mem_gb:g}GB" in platform.name
    elif cpu is not None:
        raise SeventyError(
            '{name} is sold with different amounts of memory: say how much, as in "{name} + 64GB"', name=name
        )
    else:
        return None
    if said.unread:
        notes.append(("memory_unread", {"said": said.unread, "dimms": str(dimms)}))
    elif not known:
        notes.append(("memory_unsaid", {"dimms": str(dimms)}))
    return dimms


def _stand_in(said: Description, notes: list[Note]) -> str:
    """The name to predict with for a CPU that the catalogue lacks: on a known platform that of its usual CPU."""
    close = t(" Did you mean {close}?", close=either(said.close)) if said.close else ""
    if said.platform is None and said.dimms is None:
        raise SeventyError(
            'The catalogue has no CPU {cpu_name!r}, so its memory must be said too, as in "{cpu_name} '
            '4x16@2400".{close}',
            cpu_name=said.cpu_name, close=close,
        )  # fmt: skip
    if said.platform is None:
        return said.cpu_name
    cpu = usual_cpu(said.platform)
    notes.append(("cpu_stand_in", {"cpu": said.cpu_name, "platform": said.platform.name, "taken": cpu.name}))
    if said.close:
        notes.append(("cpu_close", {"names": listed(said.close)}))
    return cpu.name


def usual_cpu(platform: Platform) -> Cpu:
    """Return the CPU a platform is assumed to have: the cheapest with a price, else the median by cores."""
    fitting = cpus_for(platform, all_cpus())
    priced: dict[str, float] = {}
    for row in all_prices():
        if row.category == "cpu":
            priced[row.item] = min(row.each, priced.get(row.item, row.each))
    known = [cpu for cpu in fitting if cpu.name in priced]
    if known:
        return min(known, key=lambda cpu: priced[cpu.name])
    return sorted(fitting, key=lambda cpu: cpu.cores)[len(fitting) // 2]


def machine_from_words(cpu: str, sockets: int, memory: str | None, ssd_gbs: float) -> Machine:
    """Make the machine of `predict` from a CPU's name or a description; `memory`, if given, overrides it."""
    dimms = parse_dimms(memory) if memory else None
    exact, _ = find_cpu(cpu, all_cpus())
    said = [] if exact else [each for each in read(cpu) if each.cpu or each.platform]
    if len(said) > 1:
        raise SeventyError(
            "{cpu!r} are {said_count} machines; predict takes one, plan --from several",
            cpu=cpu, said_count=len(said),
        )
    if not said:
        return machine_from_parts(cpu, sockets, dimms, ssd_gbs=ssd_gbs)
    one = replace(said[0], dimms=dimms or said[0].dimms, sockets=max(sockets, said[0].sockets or 1))
    if one.dimms is None and one.platform is None:
        return machine_from_parts(one.cpu_name, one.sockets or 1, None, ssd_gbs=ssd_gbs)
    return replace(_owned(one, cpu).machine, ssd_gbs=ssd_gbs)
