import re
from glob import escape as escape_glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from seventy.measure.checks import Finding, ModelFile


def doctor(
    model: Annotated[
        str | None, typer.Argument(help="The model to run: a name of `seventy models` or a .gguf file.")
    ] = None,
) -> None:
    """What holds this machine back, what it costs, and the command that mends it."""
    from seventy.hub import store
    from seventy.machine import memory, settings, smbios, topology
    from seventy.measure import checks, profile

    readings = checks.Readings(
        machine=topology.read(),
        settings=settings.read(),
        slots=smbios.read(),
        memory_bytes=memory.total_bytes(),
        available_bytes=memory.available_bytes(),
        profile=profile.load(),
        model=None if model is None else model_file(store.find(model)),
    )
    show(checks.find(readings), checks.unknown(readings), Console())


def model_file(path: Path) -> "ModelFile":
    """The size of the file, or of all parts of a split one, and how fast its first part comes from the disk."""
    from seventy.machine import disk
    from seventy.measure.checks import ModelFile

    with Console(stderr=True).status(f"reading {path.name} ..."):
        rate = disk.read_rate(path, seconds=2)
    parts = path.parent.glob(re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-*-of-\1.gguf", escape_glob(path.name)))
    return ModelFile(path.name, sum(part.stat().st_size for part in parts), rate)


def cost(finding: "Finding") -> str:
    """How many times slower, in words."""
    low, mid = finding.slower
    if mid == 1:
        return "slower to load only"
    if low == mid:
        return f"{mid:.1f}x slower"
    return f"up to {mid:.1f}x slower" if low == 1 else f"{low:.1f}-{mid:.1f}x slower"


def show(findings: "list[Finding]", unknown: list[str], console: Console) -> None:
    for finding in findings:
        console.print(f"[bold yellow]{escape(finding.title)}[/]  ({cost(finding)})", soft_wrap=True)
        console.print(f"  {finding.seen}: {finding.why}", soft_wrap=True, markup=False, highlight=False)
        console.print(f"  [green]->[/] {escape(finding.fix)}", soft_wrap=True, highlight=False)
    if not findings:
        console.print("Nothing found that holds this machine back.")
    if unknown:
        console.print("Could not be looked at:", highlight=False)
    for text in unknown:
        console.print(f"  - {text}", soft_wrap=True, markup=False, highlight=False)
