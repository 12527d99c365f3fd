import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from seventy.bench import card as card_files
from seventy.bench import compare
from seventy.bench import share as share_as
from seventy.errors import SeventyError
from seventy.plan.calibration import CALIBRATION
from seventy.plan.words import language


def cards(
    files: Annotated[list[Path], typer.Argument(help="Result cards: what `seventy bench --report` wrote.")],
    catalogue: Annotated[bool, typer.Option(help="Print them as rows for catalog/data/measurements.csv.")] = False,
    group: Annotated[str, typer.Option(help="Of --catalogue: the person or project they come from.")] = "",
    source: Annotated[str, typer.Option(help="Of --catalogue: where they were published.")] = "",
    share: Annotated[bool, typer.Option("--share", help="A paragraph of each, to paste in a chat or a forum.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Of --share: a PNG for a phone, of the first card.")] = None,
    price: Annotated[str, typer.Option(help='Of --share: what the machine cost, as in "2052 CNY".')] = "",
    lang: Annotated[str | None, typer.Option(help="Of --share: en or zh (default: the locale's).")] = None,
) -> None:
    """Compare result cards, or bring them into the catalogue."""
    found = [card_files.read(path) for path in files]
    if share:
        for path, card in zip(files, found, strict=True):
            print(_paragraph(card, path, price, lang))
        if picture:
            share_as.picture(found[0], files[0].stem, picture, price)
        return
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


def _paragraph(card: card_files.Card, path: Path, price: str, lang: str | None) -> str:
    try:
        return share_as.paragraph(card, path.stem, CALIBRATION.shares["measured"].share, price, language(lang))
    except ValueError as error:
        raise SeventyError(f"{path} cannot be shared: {error}") from None
