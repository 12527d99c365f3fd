import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from seventy.runtime.memory import USUAL_CONTEXT, room
from seventy.sizes import module_size, size

if TYPE_CHECKING:
    from seventy.machine.smbios import Slots
    from seventy.measure.profile import Bandwidth, Profile
    from seventy.plan.roofline import Load

_MODEL, _QUANT = "llama-3.3-70b", "Q4_K_M"


def measure(
    json_out: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Memory only, one second.")] = False,
) -> None:
    """What this machine can do: memory, arithmetic, disk, and what it means for a 70B."""
    from seventy.hub import store
    from seventy.jit.compiler import Library
    from seventy.jit.isa import supported
    from seventy.machine.topology import physical_cores
    from seventy.measure import profile, survey
    from seventy.plan.wanted import catalogue_load

    stderr = Console(stderr=True)
    levels = supported()
    with stderr.status("measuring this machine ...") as status:

        def progress(text: str) -> None:
            if stderr.is_terminal:
                status.update(f"{text} ...")
            else:
                stderr.print(f"{text} ...", style="dim")

        if quick:
            found = profile.quick(Library(levels[-1]), len(physical_cores()))
        else:
            found = survey.measure_all(levels, store.folder(), progress)
            found.save()
    if json_out:
        sys.stdout.write(found.text())
        return
    console = Console()
    show(found, catalogue_load(_MODEL, _QUANT), console)
    kept = f"Kept in {profile.path()}; what holds this machine back: seventy doctor"
    console.print(kept, style="dim", soft_wrap=True)


def show(found: "Profile", load: "Load", console: Console) -> None:
    """Print the profile, each figure with what it means for `load`."""
    name = f"{load.name} {load.quant}"
    about = Table.grid(padding=(0, 2))
    for line in _about(found):
        about.add_row(*line)
    console.print(about)

    memory = Table(title="Reading memory", title_justify="left", title_style="bold")
    memory.add_column("threads")
    memory.add_column("GB/s, best", justify="right")
    memory.add_column("typical", justify="right")
    memory.add_column(f"{name}, at most", justify="right")
    for row in found.bandwidth:
        tokens = row.best_gbs / load.read_gb
        memory.add_row(_who(row, found), f"{row.best_gbs:.1f}", f"{row.typical_gbs:.1f}", f"{tokens:.2f} tok/s")
    console.print(memory)
    console.print(
        f"{size(1e9 * load.read_gb)} are read for each token, so {found.read_bandwidth_gbs:.1f} GB/s allow "
        f"{found.read_bandwidth_gbs / load.read_gb:.2f} tok/s to one user; {found.threads} threads are enough.",
        soft_wrap=True,
    )
    for text in _memory_notes(found, load):
        console.print(text, soft_wrap=True)

    if found.int8_gops:
        arithmetic = Table(title="Multiplying, all cores", title_justify="left", title_style="bold")
        arithmetic.add_column("")
        arithmetic.add_column("1e9/s", justify="right")
        arithmetic.add_column(f"{name} prompts, at most", justify="right")
        operations = 2 * load.active_params_b
        for level, gops in found.int8_gops.items():
            arithmetic.add_row(f"int8, {level}", f"{gops:.0f}", f"{gops / operations:.1f} tok/s")
        if found.float_gflops:
            arithmetic.add_row(f"float, {found.isa}", f"{found.float_gflops:.0f}", "")
        console.print(arithmetic)
    if found.disk_read_gbs:
        seconds = load.file_gb / found.disk_read_gbs
        console.print(
            f"Disk: {found.disk_read_gbs:.2f} GB/s in order; {size(1e9 * load.file_gb)} of model load in "
            f"{seconds:.0f} s at best.",
            soft_wrap=True,
        )


def _who(row: "Bandwidth", found: "Profile") -> str:
    text = f"{row.threads}"
    if row.per_core > 1:
        text += f" ({row.per_core} a core)"
    if found.nodes > 1:
        nodes = ", ".join(map(str, row.cpu_nodes))
        text += f", node{'s' * (len(row.cpu_nodes) > 1)} {nodes}"
        if row.memory_nodes != row.cpu_nodes:
            text += f" reading node {', '.join(map(str, row.memory_nodes))}"
    return text


def _memory_notes(found: "Profile", load: "Load") -> Iterator[str]:
    theoretical = found.slots.theoretical_gbs
    if theoretical:
        yield f"That is {100 * found.read_bandwidth_gbs / theoretical:.0f} % of what the channels give on paper."
    need, free = load.need(USUAL_CONTEXT).total, room(found.memory_bytes)
    fits = "" if need <= free else "too little: "
    yield (
        f"{load.name} {load.quant} needs {size(need)} with a context of {USUAL_CONTEXT}; {fits}{size(free)} of "
        f"{size(found.memory_bytes)} are free for it where nothing else runs."
    )
    if found.settings.hypervisor:
        yield "In a virtual machine the neighbours' share comes and goes: measure more than once."


def _slots(slots: "Slots") -> str:
    if slots.problem == "permission":
        return "not readable without root: sudo seventy measure"
    if slots.problem:
        return "not shown by this system (no SMBIOS table)"
    kinds: dict[str, int] = {}
    for slot in slots.filled:
        speed = f"-{slot.rated_mts}" if slot.rated_mts else ""
        at = f" at {slot.mts} MT/s" if slot.mts and slot.mts != slot.rated_mts else ""
        kind = f"{module_size(slot.nbytes)} {slot.kind}{speed}{at}"
        kinds[kind] = kinds.get(kind, 0) + 1
    text = f"{len(slots.filled)} of {len(slots.slots)} slots filled"
    if slots.channels:
        text += f", {slots.filled_channels} of {slots.channels} channels"
    if kinds:
        text += ": " + ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return text


def _about(found: "Profile") -> Iterator[tuple[str, str]]:
    from seventy.jit.isa import microarchitecture, notable_features
    from seventy.measure.checks import doubtful_cache

    settings, kind = found.settings, microarchitecture()
    yield "CPU", f"{found.cpu} ({kind}, by its family, model and instructions)" if kind else found.cpu
    count = f"{found.cores} usable cores, {found.threads_per_core} thread{'s' * (found.threads_per_core > 1)} each"
    yield "", f"{count}; {found.sockets} socket(s), {found.nodes} NUMA node(s)"
    yield "ISA", found.isa
    if features := notable_features():
        yield "CPU has", ", ".join(features)
    if nbytes := found.last_level_cache_bytes:
        doubtful = doubtful_cache(nbytes, found.cores, settings.hypervisor)
        yield "last-level cache", module_size(nbytes) + (", which is doubtful: all of the host's?" if doubtful else "")
    yield "memory", size(found.memory_bytes)
    yield "DIMMs", _slots(found.slots)
    swap = f"{size(settings.swap_used_bytes)} of {size(settings.swap_bytes)} used"
    told = [
        ("governor", ", ".join(settings.governors)),
        ("energy preference", ", ".join(settings.energy_preferences)),
        ("huge pages", settings.transparent_huge_pages),
        ("NUMA balancing", {True: "on", False: "off", None: None}[settings.numa_balancing]),
        ("swap", swap if settings.swap_bytes else "none"),
        ("runs in", ", ".join(filter(None, (settings.hypervisor, settings.container))) or "nothing: bare metal"),
    ]
    for name, value in told:
        yield name, value or "not shown by this system"
