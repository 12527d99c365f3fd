import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from seventy.bench import card as card_files
from seventy.bench import compare
from seventy.errors import SeventyError


def cards(
    files: Annotated[list[Path], typer.Argument(help="Result cards: what `seventy bench --report` wrote.")],
    catalogue: Annotated[bool, typer.Option(help="Print them as rows for catalog/data/measurements.csv.")] = False,
    group: Annotated[str, typer.Option(help="Of --catalogue: the person or project they come from.")] = "",
    source: Annotated[str, typer.Option(help="Of --catalogue: where they were published.")] = "",
) -> None:
    """Compare result cards, or bring them into the catalogue."""
    found = [card_files.read(path) for path in files]
    if not catalogue:
        names = [path.stem for path in files]
        table = compare.side_by_side(found, names)
        Console(width=None if sys.stdout.isatty() else 60 + 40 * len(found), highlight=False).print(table)
        return
    if not group or not source:
        raise SeventyError("a row of the catalogue says who measured it and where it stands: give --group and --source")
    rows = []
    for path, card in zip(files, found, strict=True):
        try:
            rows.append(compare.catalogue_row(card, path.stem, group, source))
        except ValueError as error:
            raise SeventyError(f"{path} is no row of the catalogue: {error}") from None
    print(compare.as_csv(rows), end="")
