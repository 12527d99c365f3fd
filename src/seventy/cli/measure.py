import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seventy.cli._console import plain
from seventy.language import listed, said, t, tn
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

    stderr = plain(stderr=True)
    levels = supported()
    with stderr.status(said(t("measuring this machine ..."))) as status:

        def progress(text: str) -> None:
            if stderr.is_terminal:
                status.update(escape(f"{said(text)} ..."))
            else:
                stderr.print(f"{said(text)} ...", style="dim")

        if quick:
            found = profile.quick(Library(levels[-1]), len(physical_cores()))
        else:
            found = survey.measure_all(levels, store.folder(), progress)
            found.save()
    if json_out:
        sys.stdout.write(found.text())
        return
    console = plain()
    show(found, catalogue_load(_MODEL, _QUANT), console)
    kept = t("Kept in {path}; what holds this machine back: seventy doctor", path=profile.path())
    console.print(said(kept), style="dim", soft_wrap=True)


def show(found: "Profile", load: "Load", console: Console) -> None:
    """Print the profile, each figure with what it means for `load`."""
    name = f"{load.name} {load.quant}"
    about = Table.grid(padding=(0, 2))
    for line in _about(found):
        about.add_row(*map(said, line))
    console.print(about)

    memory = Table(title=said(t("Reading memory")), title_justify="left", title_style="bold")
    memory.add_column(said(t("threads")))
    memory.add_column(said(t("GB/s, best")), justify="right")
    memory.add_column(said(t("typical")), justify="right")
    memory.add_column(said(t("{name}, at most", name=name)), justify="right")
    for row in found.bandwidth:
        tokens = row.best_gbs / load.read_gb
        speed = said(t("{speed:.2f} tok/s", speed=tokens))
        memory.add_row(said(_who(row, found)), f"{row.best_gbs:.1f}", f"{row.typical_gbs:.1f}", speed)
    console.print(memory)
    console.print(said(t(
        "{read_gb} are read for each token, so {read_bandwidth_gbs:.1f} GB/s allow {speed:.2f} "
        "tok/s to one user; {threads} threads are enough.",
        read_gb=size(1e9 * load.read_gb), read_bandwidth_gbs=found.read_bandwidth_gbs,
        speed=found.read_bandwidth_gbs / load.read_gb, threads=found.threads,
    )), soft_wrap=True)
    for text in _memory_notes(found, load):
        console.print(said(text), soft_wrap=True)

    if found.int8_gops:
        arithmetic = Table(title=said(t("Multiplying, all cores")), title_justify="left", title_style="bold")
        arithmetic.add_column("")
        arithmetic.add_column("1e9/s", justify="right")
        arithmetic.add_column(said(t("{name} prompts, at most", name=name)), justify="right")
        operations = 2 * load.active_params_b
        for level, gops in found.int8_gops.items():
            arithmetic.add_row(f"int8, {level}", f"{gops:.0f}", said(t("{speed:.1f} tok/s", speed=gops / operations)))
        if found.float_gflops:
            arithmetic.add_row(f"float, {found.isa}", f"{found.float_gflops:.0f}", "")
        console.print(arithmetic)
    if found.disk_read_gbs:
        seconds = load.file_gb / found.disk_read_gbs
        console.print(said(t(
            "Disk: {disk_read_gbs:.2f} GB/s in order; {file_gb} of model load in {seconds:.0f} s at best.",
            disk_read_gbs=found.disk_read_gbs, file_gb=size(1e9 * load.file_gb), seconds=seconds,
        )), soft_wrap=True)


def _who(row: "Bandwidth", found: "Profile") -> str:
    text = str(row.threads)
    if row.per_core > 1:
        text += t(" ({per_core} a core)", per_core=row.per_core)
    if found.nodes > 1:
        nodes = ", ".join(map(str, row.cpu_nodes))
        text += tn(", node {nodes}", ", nodes {nodes}", n=len(row.cpu_nodes), nodes=nodes)
        if row.memory_nodes != row.cpu_nodes:
            text += t(" reading node {nodes}", nodes=", ".join(map(str, row.memory_nodes)))
    return text


def _memory_notes(found: "Profile", load: "Load") -> Iterator[str]:
    theoretical = found.slots.theoretical_gbs
    if theoretical:
        yield t(
            "That is {read_bandwidth_gbs:.0f} % of what the channels give on paper.",
            read_bandwidth_gbs=100 * found.read_bandwidth_gbs / theoretical,
        )
    need, free = load.need(USUAL_CONTEXT).total, room(found.memory_bytes)
    fits = "" if need <= free else t("too little: ")
    yield (
        t(
            "{name} {quant} needs {need} with a context of {usual_context}; {fits}{free} of {memory_bytes} are free "
            "for it where nothing else runs.",
            name=load.name, quant=load.quant, need=size(need), usual_context=USUAL_CONTEXT, fits=fits, free=size(free),
            memory_bytes=size(found.memory_bytes),
        )
    )
    if found.settings.hypervisor:
        yield t("In a virtual machine the neighbours' share comes and goes: measure more than once.")


def _slots(slots: "Slots") -> str:
    if slots.problem == "permission":
        return t("not readable without root: sudo seventy measure")
    if slots.problem:
        return t("not shown by this system (no SMBIOS table)")
    kinds: dict[str, int] = {}
    for slot in slots.filled:
        speed = f"-{slot.rated_mts}" if slot.rated_mts else ""
        at = t(" at {mts} MT/s", mts=slot.mts) if slot.mts and slot.mts != slot.rated_mts else ""
        kind = f"{module_size(slot.nbytes)} {slot.kind}{speed}" + at
        kinds[kind] = kinds.get(kind, 0) + 1
    text = t(
        "{filled_count} of {slots_count} slots filled",
        filled_count=len(slots.filled), slots_count=len(slots.slots),
    )
    if slots.channels:
        text += t(
            ", {filled_channels} of {channels} channels",
            filled_channels=slots.filled_channels, channels=slots.channels,
        )
    if kinds:
        text += ": " + listed(t("{count} x {kind}", count=count, kind=kind) for kind, count in kinds.items())
    return text


def _about(found: "Profile") -> Iterator[tuple[str, str]]:
    from seventy.jit.isa import microarchitecture, notable_features
    from seventy.measure.checks import doubtful_cache

    settings, kind = found.settings, microarchitecture()
    yield "CPU", t(
        "{cpu} ({kind}, by its family, model and instructions)",
        cpu=found.cpu, kind=kind,
    ) if kind else found.cpu
    count = tn(
        "{cores} usable cores, {n} thread each", "{cores} usable cores, {n} threads each",
        n=found.threads_per_core, cores=found.cores,
    )
    yield "", t(
        "{count}; {sockets} socket(s), {nodes} NUMA node(s)",
        count=count, sockets=found.sockets, nodes=found.nodes,
    )
    yield t("ISA"), found.isa
    if features := notable_features():
        yield t("CPU has"), ", ".join(features)
    if nbytes := found.last_level_cache_bytes:
        doubtful = doubtful_cache(nbytes, found.cores, settings.hypervisor)
        doubt = t(", which is doubtful: all of the host's?") if doubtful else ""
        yield t("last-level cache"), module_size(nbytes) + doubt
    yield t("memory"), size(found.memory_bytes)
    yield t("DIMMs"), _slots(found.slots)
    swap = t(
        "{swap_used_bytes} of {swap_bytes} used",
        swap_used_bytes=size(settings.swap_used_bytes), swap_bytes=size(settings.swap_bytes),
    )
    inside = [each for each in (settings.hypervisor, settings.container) if each]
    told = [
        (t("governor"), ", ".join(settings.governors)),
        (t("energy preference"), ", ".join(settings.energy_preferences)),
        (t("huge pages"), settings.transparent_huge_pages),
        (t("NUMA balancing"), {True: t("on"), False: t("off"), None: None}[settings.numa_balancing]),
        (t("swap"), swap if settings.swap_bytes else t("none")),
        (t("runs in"), listed(map(t, inside)) if inside else t("nothing: bare metal")),
    ]
    for name, value in told:
        yield name, value or t("not shown by this system")
