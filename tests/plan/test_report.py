"""The HTML report is one file without network, in both languages, and its table matches the plan."""

import re
from html.parser import HTMLParser

import pytest

from seventy.catalog.book import PriceBook
from seventy.plan import report
from seventy.plan.cost import Usage
from seventy.plan.rank import Constraints, unique
from seventy.plan.report import steps
from seventy.plan.shop import Plan, shop
from seventy.plan.wanted import catalogue_load


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop(catalogue_load("70b", "Q4_K_M"), 4096, "llama.cpp", PriceBook("CN", "2025-02"),
                Constraints(budget=6000), Usage(6.0, 0.55, 3.0), "speed")  # fmt: skip


@pytest.mark.parametrize("lang, word", [("en", "Speed over price"), ("zh", "速度与价格")])
def test_report_is_self_contained(plan: Plan, lang: str, word: str) -> None:
    page = report.html(plan, lang)
    assert word in page and page.count("<svg") == 2 and "$" not in page.split("<script>")[0].replace("$2", "")
    loaded = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)|@import', page)
    assert all(a.startswith("data:") for a, _ in loaded), "nothing is fetched"
    assert page.count('<tr class="front">') == len(plan.front)
    assert page.count("<tr class=") == len(unique([*plan.ranked, *plan.front])) > 10


def test_rows_carry_numbers_to_sort_by(plan: Plan) -> None:
    page = report.html(plan, "en")
    first = page.split("<tbody>")[1].split("</tr>")[0]
    prices = re.findall(r'data-value="([\d.]+)"', first)
    assert len(prices) >= 8


def test_the_best_begins_with_price_and_speed_and_sums_its_bill(plan: Plan) -> None:
    best = report.html(plan, "en").split("<section>")[1]
    build = plan.ranked[0].build
    speed = f"{build.prediction.decode.mid:.3g} tok/s"
    assert best.index("CNY</b>") < best.index(speed) < best.index(build.platform.name) < best.index("<table")
    memory = next(part for part in build.parts if part.count > 1)
    assert f"<small>{memory.count} x " in best and f"{memory.bounds[0]:,.0f}" in best
    assert best.count("<tr>") == len(build.parts) + 1 and best.count("<tfoot>") == 1
    assert "https://" not in best


class Page(HTMLParser):
    """A page as a browser reads it: its cells in their rows and tables, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tables: dict[str, list[list[tuple[dict[str, str | None], str]]]] = {}
        self.table = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag == "table":
            self.table = found.get("id") or found.get("class") or ""
            self.tables[self.table] = []
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag in ("td", "th"):
            self.tables[self.table][-1].append((found, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if "td" in self.open and "small" not in self.open:
            attributes, text = self.tables[self.table][-1].pop()
            self.tables[self.table][-1].append((attributes, text + data))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_phone_shows_a_card_a_machine_with_price_and_speed_first(plan: Plan, lang: str) -> None:
    text = report.html(plan, lang)
    page = Page(text)
    assert not page.wrong and not page.open
    narrow = text.split("@media (max-width: 640px)")[1]
    order = {name: int(rank) for names, rank in re.findall(r"(#builds td\.[^{]+)\{ order: (-?\d+)", narrow)
             for name in re.findall(r"td\.(\w+)", names)}  # fmt: skip
    rows = page.tables["builds"][1:]
    assert len(rows) == len(unique([*plan.ranked, *plan.front]))
    for cells in rows:
        # Each figure says what it is, for the head of the table is not shown there.
        assert all(attributes.get("data-label") and text for attributes, text in cells)
        first = sorted(cells, key=lambda cell: order.get(cell[0].get("class") or "", 0))
        assert [attributes.get("class") for attributes, _ in first[:3]] == ["price", "speed", "machine"]


def test_the_bill_adds_up(plan: Plan) -> None:
    *parts, (_, (_, total)) = Page(report.html(plan, "en")).tables["bill"]
    assert len(parts) == len(plan.ranked[0].build.parts)

    def ends(text: str) -> list[float]:
        figures = [float(figure.replace(",", "")) for figure in re.findall(r"[\d,]+", text)]
        return [figures[0], figures[-1]]

    sums = [sum(each) for each in zip(*(ends(text) for _, (_, text) in parts), strict=True)]
    assert sums == pytest.approx(ends(total), abs=len(parts))


def test_nearest_is_reported_where_nothing_fits() -> None:
    found = shop(catalogue_load("70b", "Q4_K_M"), 4096, "llama.cpp", PriceBook("CN", "2025-02"),
                 Constraints(budget=300), Usage(6.0, 0.55, 3.0), "speed")  # fmt: skip
    page = report.html(found, "en")
    assert "Nothing meets all of this" in page
    assert (found.instead is None) == ("Within the same limits" not in page)


@pytest.mark.parametrize("top", [0.37, 1.0, 4.2, 99, 20000])
def test_axis_steps_reach_the_top_in_few_round_steps(top: float) -> None:
    found = steps(top)
    assert found[0] == 0 and found[-1] >= top and 3 <= len(found) <= 8
