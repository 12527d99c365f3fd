from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from seventy.hub import store


def pull(
    model: str = typer.Argument(
        ...,
        help="A name of `seventy models`, hf:user/repository/file.gguf, ms:user/repository/file.gguf, "
        "or the https:// address of a .gguf file.",
    ),
) -> None:
    """Download a model; a download that broke off goes on where it was."""
    print(pull_with_bar(model))


def pull_with_bar(model: str) -> Path:
    """The model's file, with a bar on stderr while it comes."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(model.rpartition("/")[2], total=None, visible=False)
        return store.pull(model, lambda done, total: bar.update(task, completed=done, total=total, visible=True))
