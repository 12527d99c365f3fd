import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from seventy.bench import card as card_files
from seventy.bench import compare, results
from seventy.bench import share as share_as
from seventy.bench.card import Card
from seventy.cli._card_runs import expected_tok_s, runs
from seventy.cli._console import plain
from seventy.errors import SeventyError
from seventy.language import language, said, t
from seventy.plan import recalibrate

_FILES = (
    "Result cards (what `seventy bench --report` wrote), or folders of them. After the word `import` predictions here "
    "are calibrated by them; `forget` undoes that."
)


def cards(
    files: Annotated[list[Path], typer.Argument(help=_FILES)],
    catalogue: Annotated[bool, typer.Option(help="Print them as rows for catalog/data/measurements.csv.")] = False,
    group: Annotated[str, typer.Option(help="Of --catalogue: the person or project they come from.")] = "",
    source: Annotated[str, typer.Option(help="Of --catalogue: where they were published.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print them as the table of docs/results.md.")] = False,
    share: Annotated[bool, typer.Option("--share", help="A paragraph of each, to paste in a chat or a forum.")] = False,
    picture: Annotated[Path | None, typer.Option(help="A PNG for a phone, of the first card.")] = None,
    price: Annotated[str, typer.Option(help='Of --share: what the machine cost, as in "2052 CNY".')] = "",
    lang: Annotated[str | None, typer.Option(help="Of --share: en or zh (default: the locale's).")] = None,
) -> None:
    """Compare result cards, share them, calibrate predictions by them, or bring them into the catalogue."""
    action = str(files[0]) if str(files[0]) in ("import", "forget") and not files[0].exists() else ""
    if action == "forget":
        print(said(t("{n} runs forgotten; predictions are the project's own again.", n=recalibrate.forget())))
        return
    paths = results.files(files[1:] if action else files)
    if not paths:
        raise SeventyError("there is no card; give files that `seventy bench MODEL --report FILE.json` wrote")
    if action == "import":
        _import(paths)
        return
    found = [card_files.read(path) for path in paths]
    if share or picture:
        for path, card in zip(paths, found, strict=True) if share else ():
            print(_paragraph(card, path, price, lang))
        if picture:
            _picture(found[0], paths[0], picture, price)
    elif markdown:
        print(results.markdown(found, [path.stem for path in paths]))
    elif catalogue:
        _catalogue(found, paths, group, source)
    else:
        table = compare.side_by_side(found, [path.stem for path in paths])
        plain(None if sys.stdout.isatty() else 60 + 40 * len(found)).print(table)


def _catalogue(found: Sequence[Card], paths: Sequence[Path], group: str, source: str) -> None:
    if not group or not source:
        raise SeventyError("a row of the catalogue says who measured it and where it stands: give --group and --source")
    rows = []
    for path, card in zip(paths, found, strict=True):
        try:
            rows.append(compare.catalogue_row(card, path.stem, group, source))
        except ValueError as error:
            raise SeventyError("{path} is no row of the catalogue: {error}", path=path, error=error) from None
    print(compare.as_csv(rows), end="")


def _import(paths: Sequence[Path]) -> None:
    """Calibrate predictions on this machine by the cards, and say what that changes."""
    ran = [each for card in results.checked(paths) for each in runs(card)]
    new, every = recalibrate.add(ran)
    table = Table("CPU", *map(said, (t("engine"), t("answers, measured / predicted"), t("prompts"), t("card"))))
    for run in every:
        cells = [f"{value:.2f}" if value else "-" for value in (run.decode, run.prefill)]
        table.add_row(run.cpu, run.engine, *cells, run.card + (said(t(" (new)")) if run in new else ""))
    plain(None if sys.stdout.isatty() else 120).print(table)
    print(said(t(
        "{new} of {all} runs are new; predict and plan use them. `seventy cards forget` undoes it.",
        new=len(new), all=len(ran),
    )))


def _paragraph(card: Card, path: Path, price: str, lang: str | None) -> str:
    try:
        return share_as.paragraph(card, path.stem, expected_tok_s(card), price, language(lang))
    except ValueError as error:
        raise SeventyError("{path} cannot be shared: {error}", path=path, error=error) from None


def _picture(card: Card, path: Path, picture: Path, price: str) -> None:
    try:
        share_as.picture(card, path.stem, picture, price)
    except ValueError as error:
        raise SeventyError("{path} cannot be shared: {error}", path=path, error=error) from None
