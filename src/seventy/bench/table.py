"""A run's results as a person reads them."""

from collections.abc import Iterator

from rich.table import Table

from seventy.bench.card import Card, Result, Samples
from seventy.bench.energy import cny_per_million_tokens
from seventy.language import said, t


def table(card: Card, title: str) -> Table:
    """Make the table of all figures, with GB/s and GOPS and their shares of the measured limits."""
    found = Table(title=title, title_justify="left")
    for i, name in enumerate(_columns(card)):
        found.add_column(said(name), justify="right" if i else "left")
    for result in card.results:
        found.add_row(*map(said, _cells(card, result)))
    return found


def markdown(card: Card) -> str:
    """Format the rows as Markdown, for docs/performance.md."""
    rows = [[name.replace("\n", " ") for name in _columns(card)], *([*_cells(card, each)] for each in card.results)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _extrapolates(card: Card) -> bool:
    return any(result.whole_model for result in card.results)


def _counts_joules(card: Card) -> bool:
    return any(result.joules_per_token for result in card.results)


def _columns(card: Card) -> Iterator[str]:
    yield ""
    yield t("{name}\ntok/s", name="seventy")
    if _extrapolates(card):
        yield t("all {whole_layers} layers\n(extrapolated)", whole_layers=card.model.whole_layers)
    if card.peer:
        yield t("{name}\ntok/s", name=card.peer.name)
        yield t("ratio")
    if card.model.experts:
        yield t("experts read\nof {experts}", experts=card.model.experts)
    yield "GB/s"
    yield t("of what\nmemory gave")
    yield "GOPS"
    if card.int8_limit_gops:
        yield t("of {limit:.0f}", limit=card.int8_limit_gops)
    if _counts_joules(card):
        yield t("J/token")
        if card.energy and card.energy.cny_per_kwh is not None:
            yield t("yuan per\n1M tokens")


def _cells(card: Card, result: Result) -> Iterator[str]:
    yield result.label
    yield _speed(result.tokens_per_second)
    if _extrapolates(card):
        yield _speed(result.whole_model) if result.whole_model else ""
    if card.peer:
        versus = result.versus
        yield _speed(versus.tokens_per_second) if versus else ""
        yield f"{versus.ratio:.2f} ({versus.ratio_low:.2f}-{versus.ratio_high:.2f})" if versus else ""
    if card.model.experts:
        yield f"{result.experts:.1f}" if result.experts else ""
    yield f"{result.gbs:.1f}"
    limit = result.read_limit_gbs.median if result.read_limit_gbs else card.machine.read_bandwidth_gbs
    yield t("{share:.0%} of {limit:.1f}", share=result.memory_share(card.machine), limit=limit)
    yield f"{result.gops:.0f}"
    if card.int8_limit_gops:
        yield f"{result.gops / card.int8_limit_gops:.0%}"
    if _counts_joules(card):
        joules = result.joules_per_token
        yield f"{joules.median:.3g}" if joules else ""
        if card.energy and card.energy.cny_per_kwh is not None:
            yield f"{cny_per_million_tokens(joules.median, card.energy.cny_per_kwh):.3g}" if joules else ""


def _speed(samples: Samples) -> str:
    return f"{samples.median:.2f} ±{samples.spread:.0%}"
