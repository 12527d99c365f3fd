"""The plan as one HTML file: sortable table, SVG charts, no network, English or Chinese."""

import math
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from seventy.catalog.book import PriceBook
from seventy.errors import SeventyError
from seventy.plan.bill import money, part_price, part_source, price_range
from seventy.plan.builds import short_cpu
from seventy.plan.cost import Usage
from seventy.plan.rank import Offer, front, unique
from seventy.plan.shop import Plan
from seventy.plan.show import about, census_text, headline, instead_text, nearest_text, noise_word, shown_builds
from seventy.plan.words import number, say, unit

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 480, 300, 62, 40, 14, 26
LINES = ("#0b6e4f", "#2a6fbb", "#b3541e", "#7b4fa3", "#7a7f26")
MOST_YEARS = 5
MOST_ROWS = 400


def steps(top: float, about: int = 5) -> list[float]:
    """Round figures from 0 past `top` for an axis."""
    raw = max(top, 1e-9) / about
    unit = 10 ** math.floor(math.log10(raw))
    size = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    return [size * i for i in range(math.ceil(top / size) + 1)]


class Chart:
    """A small SVG with two axes from zero; colours come from the page's style."""

    def __init__(self, most_x: float, most_y: float, label_x: str, label_y: str) -> None:
        self.ticks_x, self.ticks_y = steps(most_x), steps(most_y)
        self.marks: list[str] = []
        for value in self.ticks_x:
            x = self.x(value)
            self.marks.append(f'<line class="axis" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>'
                              f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
                              f"{short(value)}</text>")
        for value in self.ticks_y:
            y = self.y(value)
            self.marks.append(f'<line class="axis" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
                              f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
        self.marks.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT}" text-anchor="end">{escape(label_x)}</text>'
                          f'<text x="4" y="{TOP - 18}">{escape(label_y)}</text>')  # fmt: skip

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.ticks_x[-1]

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / self.ticks_y[-1]

    def svg(self, label: str) -> str:
        return (f'<svg viewBox="0 -20 {WIDTH} {HEIGHT + 24}" role="img" aria-label="{escape(label)}">'
                + "".join(self.marks) + "</svg>")  # fmt: skip


def short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10000 else f"{value:g}"


def front_chart(shown: Sequence[Offer], front: Sequence[Offer], book: PriceBook, lang: str) -> str:
    """Draw builds as dots and the front as a line of steps; the axis ends at four times the front's middle price."""
    prices = sorted(offer.build.price for offer in front)
    most = min(max(offer.build.price for offer in shown), 4 * prices[len(prices) // 2])
    inside = [offer for offer in shown if offer.build.price <= most]
    chart = Chart(most, max(offer.build.prediction.decode.mid for offer in inside),
                  say("r_front_x", lang, {"currency": book.currency}), say("r_front_y", lang))  # fmt: skip
    best = {id(offer) for offer in front}
    for offer in inside:
        if id(offer) not in best:
            chart.marks.append(dot(chart, offer, "var(--dot)", 3))
    line = [offer for offer in front if offer.build.price <= most]
    points = " ".join(f"{chart.x(o.build.price):.1f},{chart.y(o.build.prediction.decode.mid):.1f}" for o in line)
    chart.marks.append(f'<polyline points="{points}" fill="none" stroke="var(--front)" stroke-width="1.5"/>')
    chart.marks += [dot(chart, offer, "var(--front)", 5) for offer in line]
    return chart.svg(say("r_front", lang))


def dot(chart: Chart, offer: Offer, colour: str, radius: int) -> str:
    build = offer.build
    title = f"{build.name}: {money(build.price)}, {number(build.prediction.decode.mid)} tok/s"
    return (f'<circle cx="{chart.x(build.price):.1f}" cy="{chart.y(build.prediction.decode.mid):.1f}" r="{radius}" '
            f'fill="{colour}"><title>{escape(title)}</title></circle>')  # fmt: skip


def years_chart(offers: Sequence[Offer], book: PriceBook, lang: str) -> tuple[str, str]:
    """Draw price plus electricity by year for the first few builds; return the chart and its legend."""
    ends = [offer.build.price + offer.cost.electricity_per_year * MOST_YEARS for offer in offers]
    chart = Chart(MOST_YEARS, max(ends), say("r_years_x", lang),
                  say("r_years_y", lang, {"currency": book.currency}))  # fmt: skip
    legend = []
    for offer, end, colour in zip(offers, ends, LINES, strict=False):
        chart.marks.append(f'<line x1="{chart.x(0):.1f}" y1="{chart.y(offer.build.price):.1f}" '
                           f'x2="{chart.x(MOST_YEARS):.1f}" y2="{chart.y(end):.1f}" stroke="{colour}" '
                           f'stroke-width="2"/>')  # fmt: skip
        legend.append(f'<span><span class="key" style="background:{colour}"></span>{escape(offer.build.name)}</span>')
    return chart.svg(say("r_years", lang)), "".join(legend)


def row(offer: Offer, on_front: bool, lang: str, labels: Sequence[str]) -> str:
    build, cost = offer.build, offer.cost
    have, total = build.channels
    decode, about = build.prediction.decode, "~" if cost.estimated else ""
    ranged = "~" if build.uncertain else ""
    litres = build.platform.volume_l
    cells: list[tuple[str, object]] = [
        (build.platform.name, build.platform.name), (f"{build.sockets}x {short_cpu(build.cpu)}", build.cpu.name),
        (str(build.dimms), build.dimms.total_gb), (f"{have:g}/{total:g}", have / total),
        (ranged + money(build.price) + ("+" if build.blanks else ""), build.price), (number(decode.mid), decode.mid),
        (f"{number(decode.low)}-{number(decode.high)}", decode.low),
        (number(build.prediction.prefill.mid), build.prediction.prefill.mid),
        (f"{about}{cost.idle_w:.0f}/{cost.load_w:.0f}", cost.load_w), (f"{cost.kwh_per_day:.1f}", cost.kwh_per_day),
        (money(cost.over_years), cost.over_years), (money(cost.million_tokens), cost.million_tokens),
        (f"{litres:g}" if litres else say("unknown", lang), litres or 1e9),
        (noise_word(build.platform.noise_class, lang), build.platform.noise_class),
    ]  # fmt: skip
    classes = {0: "machine", 4: "price", 5: "speed"}
    shown = "".join(
        f'<td class="{classes.get(column, "")}" data-label="{escape(label)}" data-value="{escape(str(value))}">'
        f"{escape(text)}</td>"
        for column, (label, (text, value)) in enumerate(zip(labels, cells, strict=True))
    )
    return f'<tr class="{"front" if on_front else ""}">{shown}</tr>'


def chosen(plan: Plan, lang: str) -> str:
    """Return the best build: price and speed, its bill with a sum a part, and what to know of it."""
    build, currency = plan.ranked[0].build, plan.book.currency
    decode = build.prediction.decode
    rows = []
    for part in build.parts:
        each, total = part_price(part)
        pieces = f'<small>{part.count} x {each}</small>' if part.count > 1 and each else ""
        source = escape(_hosts(part_source(part, currency, lang, room=200)))
        rows.append(f'<tr><td>{part.count} x {escape(part.label)}<small>{source}</small></td>'
                    f'<td>{escape(total or say("d_no_price", lang))}{pieces}</td></tr>')  # fmt: skip
    total = price_range(build) + ("+" if build.blanks else "")
    currency = unit(currency, lang)
    rows.append(f'<tfoot><tr><td>{escape(say("d_total", lang))}, {currency}</td><td>{total}</td></tr></tfoot>')
    speed = escape(say("p_unit", lang))
    return (f'<p class="figures"><b>{total} {currency}</b> <b>{number(decode.mid)} {speed}</b></p>'
            f'<p class="named">{escape(build.name)}'
            f"<small>{number(decode.low)} - {number(decode.high)} {speed}</small></p>"
            f'<table class="bill">{"".join(rows)}</table>{listed(about(plan, lang))}')  # fmt: skip


def _hosts(text: str) -> str:
    """The text with the host alone of each address: a phone's line holds no more."""
    return re.sub(r"https?://(?:www\.)?([^/\s;)]+)[^\s;),]*", r"\1", text)


def listed(lines: Sequence[str]) -> str:
    """Format lines as an HTML list: lines that begin with "!" are warnings, those with "-" belong to the one before."""
    kinds = {"!": "stale", "-": "under"}
    items = (f'<li class="{kinds.get(line.strip()[:1], "")}">{escape(_hosts(line.strip().lstrip("!- ")))}</li>'
             for line in lines)  # fmt: skip
    return f'<ul>{"".join(items)}</ul>'


def report(
    title: str, headline: str, best: str, census: str, ranked: Sequence[Offer], shown: Sequence[Offer],
    front: Sequence[Offer], usage: Usage, book: PriceBook, lang: str,
) -> str:  # fmt: skip
    """Render the HTML file: `ranked` in the cost chart, `shown` in table and dots, `best_lines` as plain text."""
    template = Template((files("seventy.plan") / "report.html").read_text(encoding="utf-8"))
    years, legend = years_chart(ranked[: len(LINES)], book, lang)
    heads = ("c_machine", "c_cpu", "c_memory", "c_channels", "c_price", "c_speed", "c_range", "c_prefill", "c_watts",
             "c_kwh", "c_years", "c_million", "c_litres", "c_noise")  # fmt: skip
    labels = [say(key, lang, {"years": f"{usage.years:g}"}) for key in heads]
    on_front = {id(offer) for offer in front}
    paragraphs = [f'<p class="{"stale" if line.startswith("!") else "soft"}">{escape(line.lstrip("! "))}</p>'
                  for line in headline.splitlines()]  # fmt: skip
    return template.substitute(
        lang="zh-CN" if lang == "zh" else "en", title=escape(title), headline="".join(paragraphs),
        front_title=escape(say("r_front", lang)), front_chart=front_chart(shown, front, book, lang),
        on_front=escape(say("r_on_front", lang)), off_front=escape(say("r_off_front", lang)),
        years_title=escape(say("r_years", lang)), years_chart=years, years_legend=legend,
        best_title=escape(say("r_best", lang)),
        best=best,
        all_title=escape(say("r_all", lang)), sort_hint=escape(say("r_sort", lang)), marks=escape(say("t_marks", lang)),
        head="".join(f'<th><button type="button">{escape(label)}</button></th>' for label in labels),
        rows="\n".join(row(offer, id(offer) in on_front, lang, labels) for offer in shown[:MOST_ROWS]),
        how=escape(say("r_how", lang)), census=escape(census.replace("\n", " ")),
    )  # fmt: skip


def html(plan: Plan, lang: str) -> str:
    """Render a plan as one HTML file; if nothing meets the limits, with the nearest builds and lower quants."""
    lower = [plan.lower[0]] if plan.lower else []
    shown = unique([*plan.ranked, *plan.front]) if plan.kept else list(plan.nearest) or lower
    if not shown:
        raise SeventyError(say("n_none", lang))
    if plan.ranked:
        best = chosen(plan, lang)
    else:
        nearest = nearest_text(plan.nearest, plan.book, lang).splitlines()
        best = listed([*nearest, *(line for block in instead_text(plan, lang) for line in block.splitlines())])
    return report(
        say("r_title", lang, {"model": f"{plan.load.name} {plan.load.quant}"}),
        headline(plan.load, plan.book, lang, builds=shown_builds(plan)), best,
        census_text(plan.census, len(plan.kept), plan.seconds, lang),
        plan.ranked or shown, shown, plan.front or front(shown), plan.usage, plan.book, lang,
    )  # fmt: skip
