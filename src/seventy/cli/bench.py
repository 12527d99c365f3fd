import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from seventy.bench.engine import Engine, Seventy
from seventy.bench.measure import Figure, Ratio, Task, measure
from seventy.bench.peers import LlamaCpp
from seventy.cli import _session as session
from seventy.engine.model import Model
from seventy.machine.profile import Profile


def bench(
    model: session.ModelArgument = "smollm2",
    prefill: Annotated[list[int] | None, typer.Option(min=1, help="Prompt lengths; may be given again.")] = None,
    decode_at: Annotated[list[int] | None, typer.Option(min=0, help="Depths to decode at; may be given again.")] = None,
    rows: Annotated[list[int] | None, typer.Option(min=1, help="Rows in one pass; may be given again.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a decode measurement.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each, after a warm-up.")] = 5,
    against: Annotated[str | None, typer.Option(help="llama.cpp, or a Python that has llama-cpp-python.")] = None,
    threads: session.Threads = None,
    isa: session.Isa = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON.")] = False,
) -> None:
    """Time a model here: prompts, answers, several rows at once, each beside the machine's limit."""
    path = session.locate(model)
    tasks = [
        *(Task("prefill", n) for n in prefill or (128, 512)),
        *(Task("batch", n) for n in rows or (2, 4, 8)),
        *(Task("decode", tokens, depth) for depth in decode_at or (0,)),
    ]
    context = max(task.n + task.depth for task in tasks)
    with session.bars() as progress:
        ours = Seventy(Model(path, threads, context, isa_name=isa, progress=progress))
    engines: list[Engine] = [ours]
    try:
        profile = session.machine_limit(ours.model)
        if against:
            engines.append(LlamaCpp(path, ours.model.threads, max(context, 512), _python(against)))
        with session.bars() as progress:
            figures = list(measure(engines, tasks, repeats, progress))
        if as_json:
            print(json.dumps([_as_json(each) for each in figures], indent=1))
        else:
            _print(figures, ours.model, profile[0], path)
    finally:
        for engine in engines:
            engine.close()


def _python(against: str) -> str:
    return sys.executable if against == "llama.cpp" else shutil.which(against) or against


def _as_json(figures: list[Figure]) -> dict[str, object]:
    task = figures[0].task
    found: dict[str, object] = {"what": task.what, "n": task.n, "depth": task.depth}
    for figure in figures:
        found[figure.engine] = {"tok_s": figure.median, "spread": figure.spread, "samples": figure.samples}
    if len(figures) > 1:
        ratio = Ratio.of(*figures)
        found["ratio"] = {"median": ratio.median, "low": ratio.low, "high": ratio.high}
    return found


def _print(figures: list[list[Figure]], model: Model, profile: Profile, path: Path) -> None:
    limit = profile.read_bandwidth_gbs
    title = f"{path.name}, {model.threads} threads, {model.isa.name}; memory limit {limit:.1f} GB/s"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for figure in figures[0]:
        table.add_column(f"{figure.engine}\ntok/s", justify="right")
    for name in ("GB/s", "of limit", *(["ratio"] if len(figures[0]) > 1 else [])):
        table.add_column(name, justify="right")
    for each in figures:
        task, ours = each[0].task, each[0]
        passes = ours.median / (1 if task.what == "decode" else task.n)
        gbs = passes * model.read_bytes(task.depth) / 1e9
        cells = [task.label, *(f"{figure.median:.2f} ±{figure.spread:.0%}" for figure in each)]
        cells += [f"{gbs:.1f}", f"{gbs / limit:.0%}"] if task.what != "prefill" else ["", ""]
        if len(each) > 1:
            ratio = Ratio.of(*each)
            cells.append(f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})")
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 110).print(table)

