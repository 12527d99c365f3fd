from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from seventy.language import said, t

if TYPE_CHECKING:
    from seventy.measure.checks import Finding, ModelFile


def doctor(
    model: Annotated[
        str | None, typer.Argument(help="The model to run: a name of `seventy models` or a .gguf file.")
    ] = None,
) -> None:
    """What holds this machine back, what it costs, and the command that mends it."""
    from seventy.hub import local
    from seventy.machine import settings, smbios, topology
    from seventy.measure import checks, profile
    from seventy.runtime.reservations import ledger

    with ledger() as memory:
        total, room = memory.total, memory.room
    readings = checks.Readings(
        machine=topology.read(),
        settings=settings.read(),
        slots=smbios.read(),
        memory_bytes=total,
        room_bytes=room,
        profile=profile.load(),
        model=None if model is None else model_file(local.find(model)),
    )
    show(checks.find(readings), checks.unknown(readings), Console(emoji=False))


def model_file(path: Path) -> "ModelFile":
    """Return a file's size (of all parts of a split model), its memory need, and how fast the disk reads it."""
    from seventy.gguf.file import GGUF
    from seventy.machine import disk
    from seventy.measure.checks import ModelFile
    from seventy.plan.wanted import gguf_load
    from seventy.runtime.memory import USUAL_CONTEXT

    with GGUF(path) as file:
        nbytes, need = sum(part.stat().st_size for part in file.paths), gguf_load(file).need(USUAL_CONTEXT)
    with Console(stderr=True).status(escape(said(t("reading {name} ...", name=path.name)))):
        rate = disk.read_rate(path, seconds=2)
    return ModelFile(path.name, nbytes, need.total, rate)


def cost(finding: "Finding") -> str:
    """Format by how many times a finding slows generating."""
    low, mid = finding.slower
    if mid == 1:
        return t("slower to load only")
    if low == mid:
        return t("{mid:.1f}x slower", mid=mid)
    return t("up to {mid:.1f}x slower", mid=mid) if low == 1 else t("{low:.1f}-{mid:.1f}x slower", low=low, mid=mid)


def show(findings: "list[Finding]", unknown: list[str], console: Console) -> None:
    for finding in findings:
        console.print(f"[bold yellow]{escape(said(finding.title))}[/]  ({said(cost(finding))})", soft_wrap=True)
        reason = said(t("{seen}: {why}", seen=finding.seen, why=finding.why))
        console.print(f"  {reason}", soft_wrap=True, markup=False, highlight=False)
        console.print(f"  [green]->[/] {escape(said(finding.fix))}", soft_wrap=True, highlight=False)
    if not findings:
        console.print(said(t("Nothing found that holds this machine back.")))
    if unknown:
        console.print(said(t("Could not be looked at:")), highlight=False)
    for text in unknown:
        console.print(f"  - {said(text)}", soft_wrap=True, markup=False, highlight=False)
