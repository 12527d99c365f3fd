"""The bill of a build: what each part costs, where its price comes from, and the sum."""

import re

from seventy.catalog.prices import Part
from seventy.language import listed, said, sentences, t
from seventy.plan.builds import Build
from seventy.plan.tables import clip
from seventy.plan.words import number, say, unit


def money(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else number(value)


def price_range(build: Build) -> str:
    """Format the price of a build, as a range if a part's price is one or was converted or inferred."""
    if not build.uncertain:
        return money(build.price)
    return f"{money(build.price_low)} - {money(build.price_high)}"


def part_price(part: Part) -> tuple[str, str]:
    """Return the price of one piece and of all of them, as ranges where they are; blank where no price is known."""
    if part.each is None:
        return "", ""
    low, high = part.bounds
    if part.certain:
        return money(part.each), money(part.count * part.each)
    return f"{money(low / part.count)} - {money(high / part.count)}", f"{money(low)} - {money(high)}"


def part_source(part: Part, currency: str, lang: str, room: int = 70) -> str:
    """Return where a price comes from, how it was carried or inferred, and how old it is."""
    row = part.price
    if row is None:
        return ""
    condition = [say("cond_" + row.condition, lang)] if row.condition in ("new", "used") else []
    text = said(listed([*condition, row.date, clip(row.source, room)]), lang)
    if row.inferred:
        text = say("d_inferred", lang, {"formula": formula(row.source, lang)})
    elif part.carried:
        now = money(row.each * part.factor.mid)
        carried = say("d_carried", lang, {"then": money(row.each), "factor": part.factor.mid, "now": now,
                                          "currency": currency})  # fmt: skip
        text = said(sentences([text, carried]), lang)
    if part.stale_months and not part.carried:
        text = said(sentences([text, say("d_old", lang, {"months": part.stale_months})]), lang)
    return text


def part_line(part: Part, currency: str, lang: str) -> str:
    """Return a line of the bill for a terminal: the price of one, the sum of several, where it comes from."""
    each, total = part_price(part)
    name = t("{count} x {label}", count=part.count, label=part.label)
    if not each:
        return said(t("  {part}: {price}", part=name, price=say("d_no_price", lang)), lang)
    sum_of = say("d_sum", lang, {"total": total, "currency": currency}) if part.count > 1 else ""
    price = f"{each} {unit(currency, lang)}{sum_of}"
    return said(t("  {part}: {price} ({about})", part=name, price=price, about=part_source(part, currency, lang)), lang)


# The words of a formula of catalog/inferred.py, in Chinese.
_FORMULA_ZH = (
    (r"([\d.]+(?: to [\d.]+)?) (\w+) a GB of (.+?) \(([\d-]+), carried\)", r"\3 每 GB \1 \2（\4，已折算）"),
    (r"([\d.]+(?: to [\d.]+)?) (\w+) in (\w+) \(([\d-]+)\)", r"\3 市场 \1 \2（\4）"),
    (r" in (US|CN|EU|UK)\b", r"（\1 市场）"), (r"\) x ", "）× "), (r", x ", "，× "), (r" x ", " × "), (r" to ", " 至 "),
    (r"\bCNY\b", "元"),
)  # fmt: skip


def formula(text: str, lang: str) -> str:
    """Return how a price was inferred, in the language of the answer."""
    for pattern, words in _FORMULA_ZH if lang == "zh" else ():
        text = re.sub(pattern, words, text)
    return text
