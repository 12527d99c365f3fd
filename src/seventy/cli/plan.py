"""`seventy plan`: what to buy, or what to add to what one has."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seventy.errors import SeventyError

if TYPE_CHECKING:
    from seventy.catalog.book import PriceBook
    from seventy.plan.shop import Plan
    from seventy.plan.wanted import Wanted

REGION_OF = {"CNY": "CN", "USD": "US"}


def plan(
    article: Annotated[bool, typer.Option("--article", help="The article's builds beside our predictions.")] = False,
    model: Annotated[str, typer.Option(help="A model's name, as pull takes it.")] = "llama-3.3-70b",
    quant: Annotated[str | None, typer.Option(help="Q8_0, ...; Q4_K_M when neither this nor the name says.")] = None,
    params: Annotated[
        float | None, typer.Option(help="Parameters in billions, for a model that is not in the catalogue.")
    ] = None,
    active_params: Annotated[float | None, typer.Option(help="Active parameters in billions (MoE).")] = None,
    weights_gb: Annotated[float | None, typer.Option(help="Size of the weights in GB.")] = None,
    weights_gib: Annotated[float | None, typer.Option(hidden=True)] = None,
    context: Annotated[int, typer.Option(min=1, help="Tokens of context to hold in memory.")] = 4096,
    users: Annotated[int, typer.Option(min=1, help="Users whose answers are written at once.")] = 1,
    engine: Annotated[str, typer.Option(help="llama.cpp or seventy.")] = "llama.cpp",
    budget: Annotated[float | None, typer.Option(min=1, help="The most to spend.")] = None,
    currency: Annotated[str | None, typer.Option(help="CNY or USD; chooses the region.")] = None,
    region: Annotated[str | None, typer.Option(help="Whose prices: CN or US.")] = None,
    date: Annotated[str | None, typer.Option(help="Prices as of this month, as in 2025-02.")] = None,
    ram_factor: Annotated[float, typer.Option(help="Multiply memory prices.")] = 1.0,
    prices: Annotated[Path | None, typer.Option(help="Your own prices (TOML).")] = None,
    parts: Annotated[Path | None, typer.Option(help="Your own CPUs and platforms (TOML).")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Quiet machines only.")] = False,
    silent: Annotated[bool, typer.Option("--silent", help="Silent machines only.")] = False,
    max_watts: Annotated[float | None, typer.Option(help="The most watts under load.")] = None,
    max_litres: Annotated[float | None, typer.Option(help="The largest body.")] = None,
    min_tok_s: Annotated[float | None, typer.Option(help="The slowest decode.")] = None,
    target_tok_s: Annotated[float | None, typer.Option(help="The cheapest machine that decodes this fast.")] = None,
    place: Annotated[str, typer.Option(help="home (quiet, no rack server), office, rack or any.")] = "home",
    hours_per_day: Annotated[float, typer.Option(min=0, max=24, help="Hours under load; on all day.")] = 6.0,
    tariff: Annotated[float | None, typer.Option(min=0, help="Price of a kWh.")] = None,
    years: Annotated[float, typer.Option(min=0.1, help="Years of use.")] = 3.0,
    best: Annotated[
        str | None, typer.Option(help="sense, budget (the default with one), speed, price, value, running-cost, quiet.")
    ] = None,
    own_drive: Annotated[bool, typer.Option("--own-drive", help="An SSD is there already.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 8,
    from_: Annotated[
        list[str] | None, typer.Option("--from", help='What you have: "HP Z440 + E5-2680 v4 + 1x64@2400".')
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="What to add to this machine.")] = False,
    models: Annotated[bool, typer.Option("--models", help="List the models of the catalogue.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a report to this file.")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    lang: Annotated[str | None, typer.Option(help="en or zh (default: the locale's).")] = None,
) -> None:
    """Say what to buy: whole machines ranked by predicted tokens per second."""
    from seventy.catalog.user_files import own_parts
    from seventy.language import language
    from seventy.plan import answers, low_bits, report, wanted
    from seventy.plan.cost import Usage
    from seventy.plan.rank import Constraints
    from seventy.plan.shop import shop

    speak = language(lang)
    if article:
        print(_article(speak, json_out))
        return
    if models:
        print(answers.models_text(speak))
        return
    if engine not in ("llama.cpp", "seventy"):
        raise SeventyError("--engine {engine!r} is not known; it is llama.cpp or seventy.", engine=engine)
    if params is not None or weights_gb is not None or weights_gib is not None:
        want = wanted.bare(params, active_params, wanted.weights_gb(weights_gb, weights_gib), quant)
    else:
        want = wanted.wanted(model, quant)
    want.check(engine, speak)
    question = _Question(want, context, engine, users, _book(currency, region, date, ram_factor, prices), speak)
    if from_ or here:
        print(_upgrades(question, from_ or [], here, json_out))
        return
    _check_choices(best, place)
    usage = Usage(hours_per_day, _tariff(question.book) if tariff is None else tariff, years)
    wishes = Constraints(budget, quiet, silent, max_watts, max_litres, target_tok_s or min_tok_s, place)
    aim = "price" if target_tok_s is not None else best or ("budget" if budget is not None else "sense")
    own_cpus, own_platforms = own_parts(parts) if parts is not None else ([], [])
    found = shop(want.load, context, engine, question.book, wishes, usage, aim, own_drive, own_cpus, own_platforms,
                 users, low_bits.lower(want, engine))  # fmt: skip
    if html is not None:
        html.write_text(report.html(found, speak), encoding="utf-8")
        print(f"{html}", file=sys.stderr)
    print(_shopping(question, found, top, json_out))


@dataclass(frozen=True, slots=True)
class _Question:
    """What is to run, how, at whose prices, and the language of the answer."""

    want: "Wanted"
    context: int
    engine: str
    users: int
    book: "PriceBook"
    lang: str


def _article(lang: str, as_json: bool) -> str:
    """The article's builds beside our predictions."""
    from seventy.plan.article import article_json, article_text

    return _json(article_json()) if as_json else article_text(lang)


def _upgrades(asked: _Question, described: list[str], here: bool, as_json: bool) -> str:
    """What to add to the machines that are described, and to this one with `here`."""
    from seventy.plan import low_bits, upgrade
    from seventy.plan.here import this_machine
    from seventy.plan.owned import Owned, owned

    want, engine, lang = asked.want, asked.engine, asked.lang
    machines = [each for text in described for each in owned(text)]
    machines += [Owned(this_machine(), this_machine().dimms)] if here else []
    for one in machines:
        want.check(engine, lang, one.machine)
    have = [upgrade.Upgrade(each, want.load, asked.context, engine, asked.users) for each in machines]
    if as_json:
        found = [
            upgrade.as_json(each, asked.book, lang)
            | low_bits.fit_json(want, engine, each.machine, asked.context, asked.users) | {"get": want.command}
            for each in have
        ]  # fmt: skip
        return _json(found[0] if len(have) == 1 else {"machines": found})
    texts = []
    for each in have:
        few = low_bits.endings(want, engine, lang, each.machine, asked.context, asked.users)
        texts.append("\n".join([upgrade.as_text(each, asked.book, lang), *few]))
    return "\n\n".join(texts) + "".join(f"\n{line}" for line in want.endings(engine, lang))


def _shopping(asked: _Question, found: "Plan", top: int, as_json: bool) -> str:
    """What to buy: `top` machines, and what else is to be said of the model."""
    from seventy.plan import answers, low_bits, show

    want, engine, lang = asked.want, asked.engine, asked.lang
    if as_json:
        reason = want.reason()
        about = {"seventy_cannot": reason and reason.into(lang), "get": want.command}
        return _json(answers.plan_json(found, lang, top) | about)
    costs = low_bits.endings(want, engine, lang, None, asked.context)
    return "\n".join([show.text(found, lang, top), "", *costs, *want.endings(engine, lang)]).rstrip()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _check_choices(best: str | None, place: str) -> None:
    from seventy.plan.rank import AIMS, PLACES

    if best is not None and best not in AIMS:
        raise SeventyError("--best {best!r} is none of {aims}.", best=best, aims=", ".join(AIMS))
    if place not in PLACES:
        raise SeventyError("--place {place!r} is none of {places}.", place=place, places=", ".join(PLACES))


def _tariff(book: "PriceBook") -> float:
    """The price of a kWh in the book's region."""
    known = book.electricity()
    if known is None:
        raise SeventyError("No price of electricity is known for {region}; give --tariff.", region=book.region)
    return known.each


def _book(currency: str | None, region: str | None, date: str | None, ram_factor: float, prices: Path | None
          ) -> "PriceBook":  # fmt: skip
    """The prices to plan with; a currency chooses its region, and the two must agree."""
    from seventy.catalog.book import REGIONS, PriceBook
    from seventy.catalog.user_files import own_prices

    if currency is not None and currency.upper() not in REGION_OF and prices is None:
        known = ", ".join(REGION_OF)
        raise SeventyError(
            "There are no prices in {currency}; known are {known}; bring your own with --prices FILE.",
            currency=currency, known=known,
        )
    where = (region or REGION_OF.get((currency or "CNY").upper(), "own")).upper()
    money = (currency or REGIONS.get(where, ("CNY", ""))[0]).upper()
    if where in REGIONS and money != REGIONS[where][0]:
        raise SeventyError(
            "The prices of {where} are in {regions}, not {money}; they are never mixed.",
            where=where, regions=REGIONS[where][0], money=money,
        )
    own = own_prices(prices, where, money) if prices is not None else []
    return PriceBook(where, date, ram_factor, own)


