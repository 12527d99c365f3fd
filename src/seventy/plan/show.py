"""A plan for a terminal: headline, table, the best build in full, the front, and what was left out."""

import datetime
from collections.abc import Sequence

from seventy.catalog.api_prices import api_prices_of
from seventy.catalog.book import CARRY_MONTHS, LATER_MONTHS, REGIONS, STALE_MONTHS, PriceBook
from seventy.catalog.inflation import last_month
from seventy.catalog.prices import months
from seventy.language import Message, listed, sentences, t
from seventy.plan import drafts
from seventy.plan.advice import P106_IDLE_W, P106_LOAD_W, growth, notes
from seventy.plan.bill import money, part_line, price_range
from seventy.plan.builds import Build, Census, short_cpu
from seventy.plan.cost import Usage
from seventy.plan.low_bits import loss_text
from seventy.plan.rank import Offer
from seventy.plan.roofline import PROMPT_TOKENS, Load, Prediction, predict
from seventy.plan.shop import Plan
from seventy.plan.tables import table, terminal_width
from seventy.plan.words import MESSAGES, number, say, unit
from seventy.sizes import size


def headline(
    load: Load, book: PriceBook, lang: str, today: datetime.date | None = None, builds: Sequence[Build] = ()
) -> str:
    """Name the model and the prices with their age: those of `builds` if some are shown."""
    today = today or datetime.date.today()
    age = today.year * 12 + today.month - 1 - months(book.month)
    values = {"model": load.name, "quant": load.quant, "size": size(1e9 * load.file_gb), "region": book.region,
              "currency": book.currency, "month": book.month}  # fmt: skip
    last = last_month()
    ahead = months(book.month) - months(last) > CARRY_MONTHS
    if ahead:
        values["month"] = last
    dates = source_months(builds)
    old = bool(dates) and months(book.month) - months(dates[0]) > STALE_MONTHS
    # A bill with an old price has no new month for a title.
    text = say("h_carried", lang, {**values, "oldest": dates[0], "newest": dates[-1]}) if old else (
        say("h_line", lang, values))  # fmt: skip
    if ahead:
        text += "\n" + say("h_ahead", lang, {"month": last})
    if age >= 12:
        text += "\n" + say("h_stale", lang, {"age": age})
    elif old:
        text += "\n" + say("h_inflation", lang)
    if book.ram_factor != 1.0:
        text += "\n" + say("h_factor", lang, {"factor": book.ram_factor})
    return text


def source_months(builds: Sequence[Build]) -> list[str]:
    """List the months of the prices in these bills, in order; inferred prices count as the book's month."""
    rows = [part.price for build in builds for part in build.parts if part.price is not None]
    return sorted({row.date for row in rows if not (row.inferred and row.category == "ram")})


def noise_word(noise: str, lang: str) -> str:
    return say("noise_" + (noise or "unknown"), lang)


def offer_cells(offer: Offer, lang: str) -> list[str]:
    """Return the table columns of an offer."""
    build, cost = offer.build, offer.cost
    have, total = build.channels
    decode = build.prediction.decode
    about = "~" if cost.estimated else ""
    return [
        build.platform.name, f"{build.sockets}x {short_cpu(build.cpu)}", str(build.dimms), f"{have:g}/{total:g}",
        f"{'~' if build.uncertain else ''}{money(build.price)}"
        f"{'+' if build.blanks else ''}{'*' if build.oldest_months else ''}",
        number(decode.mid), f"{number(decode.low)}-{number(decode.high)}", number(build.prediction.prefill.mid),
        f"{about}{cost.idle_w:.0f}/{cost.load_w:.0f}", f"{cost.kwh_per_day:.1f}", money(cost.over_years),
        noise_word(build.platform.noise_class, lang),
    ]  # fmt: skip


def offers_table(offers: Sequence[Offer], usage: Usage, lang: str) -> str:
    head = [say(key, lang, {"years": f"{usage.years:g}"}) for key in (
        "c_machine", "c_cpu", "c_memory", "c_channels", "c_price", "c_speed", "c_range", "c_prefill", "c_watts",
        "c_kwh", "c_years", "c_noise")]  # fmt: skip
    room = terminal_width()
    rows = [offer_cells(offer, lang) for offer in offers]
    # A narrow terminal loses the columns a buyer can best do without.
    kept = list(range(len(head))) if room >= 118 else [0, 1, 2, 3, 4, 5, 6, 9, 11] if room >= 96 else [0, 1, 2, 3, 4, 5]
    sides = "lllrrrrrrrrl"
    shown = [[row[i] for i in kept] for row in rows]
    return table([head[i] for i in kept], shown, "".join(sides[i] for i in kept), room)


def about(plan: Plan, lang: str) -> list[str]:
    """Return the chosen build after its bill: speed, power, body, room to grow, then what to know, marked with "!"."""
    offer, usage, book, load = plan.ranked[0], plan.usage, plan.book, plan.load
    build, cost, found = offer.build, offer.cost, offer.build.prediction
    have, total = build.channels
    lines = [say("d_speed", lang, {
        "decode": found.decode.mid, "low": found.decode.low, "high": found.decode.high, "prefill": found.prefill.mid,
        "first": found.first_token_s.mid, "have": have, "total": total})]  # fmt: skip
    if found.users > 1:
        lines.append(household(found, lang))
    lines += drafts.lines(found, lang)
    lines.append(say("d_power", lang, {
        "about": say("d_about", lang) if cost.estimated else "", "idle": cost.idle_w, "load": cost.load_w,
        "kwh": cost.kwh_per_day, "hours": usage.hours_per_day, "year": money(cost.electricity_per_year),
        "currency": book.currency, "tariff": usage.tariff, "years": f"{usage.years:g}",
        "over": money(cost.over_years)}))  # fmt: skip
    lines.append(say("d_million", lang, {"all": money(cost.million_tokens), "currency": book.currency,
                                         "power": money(cost.million_tokens_electricity)})
                 + api_text(load, book, lang))  # fmt: skip
    body = build.platform
    litres = say("d_litres", lang, {"litres": f"{body.volume_l:g}"}) if body.volume_l else say("d_no_litres", lang)
    lines.append(say("d_body", lang, {"noise": noise_word(body.noise_class, lang), "litres": litres}))
    more = growth(build, book)
    second = ""
    if more.second_cpu:
        price = more.second_cpu_price
        second = say("d_second", lang) if price is None else say("d_second_price", lang, {
            "price": money(price), "currency": book.currency})  # fmt: skip
    lines.append(say("d_growth", lang, {"free": more.free_slots, "most": more.max_gb, "second": second,
                                        "pcie": Message(more.pcie or MESSAGES["unknown"])}))  # fmt: skip
    if more.big_price is not None:
        lines.append(say("d_big", lang, {"modules": more.big_modules, "price": money(more.big_price),
                                         "currency": book.currency}))  # fmt: skip
    if more.gpu_low and more.gpu_high:
        lines.append(say("d_gpu", lang, {"low": money(more.gpu_low), "high": money(more.gpu_high),
                                         "currency": more.gpu_currency, "idle": P106_IDLE_W,
                                         "load": P106_LOAD_W}))  # fmt: skip
    lines += ["! " + say(key, lang, values) for key, values in notes(offer, load, plan.wishes, book, plan.engine)]
    return lines + boxes(plan, lang)


def household(found: Prediction, lang: str) -> str:
    """Describe the speed that each of several users sees: alone, all writing, and all asking at once."""
    alone = predict(found.machine, found.load, found.context, found.engine)
    return say("d_users", lang, {
        "users": found.users, "each": found.decode.mid, "low": found.decode.low, "high": found.decode.high,
        "together": found.together.mid, "alone": alone.decode.mid, "first": found.first_token_s.mid,
        "all_first": found.users * found.first_token_s.mid, "tokens": PROMPT_TOKENS})  # fmt: skip


def boxes(plan: Plan, lang: str) -> list[str]:
    """Suggest several cheap machines, one per user, if they cost no more than the one and each is faster."""
    best = plan.ranked[0]
    if plan.users < 2:
        return []
    found: list[tuple[Offer, float]] = []
    for offer in plan.kept:
        if offer.build.price * plan.users <= best.build.price * 1.05:
            one = predict(offer.build.prediction.machine, plan.load, plan.context, plan.engine)
            found.append((offer, one.decode.mid))
    offer, speed = max(found, key=lambda pair: pair[1], default=(best, 0.0))
    if speed <= best.build.prediction.decode.mid:
        return [say("d_one_box", lang, {"users": plan.users})]
    return [say("d_boxes", lang, {"users": plan.users, "name": offer.build.name, "speed": speed,
                                  "price": money(offer.build.price * plan.users),
                                  "currency": plan.book.currency})]  # fmt: skip


def api_text(load: Load, book: PriceBook, lang: str) -> str:
    """Compare with the price of the same model at an API: near the book's month and now."""
    rows = api_prices_of(load.name)
    if not rows:
        return say("d_api_none", lang)
    at = months(book.month)
    then = min(rows, key=lambda row: (abs(months(row.date) - at), row.output_per_million))
    now = min(rows, key=lambda row: (-months(row.date), row.output_per_million))
    shown = list(dict.fromkeys([then, now]))
    prices = [t("{price} {currency} ({about})", price=number(row.output_per_million), currency=row.currency,
                about=listed([row.model, row.provider.split("/")[0], row.date])) for row in shown]  # fmt: skip
    return say("d_api", lang, {"prices": sentences(prices)})


def front_text(offers: Sequence[Offer], book: PriceBook, lang: str) -> str:
    lines = [say("f_title", lang)]
    currency = unit(book.currency, lang)
    for offer in offers:
        lines.append(f"  {money(offer.build.price):>8} {currency}  {number(offer.build.prediction.decode.mid):>5} "
                     f"{say('p_unit', lang)}  {offer.build.name}")  # fmt: skip
    return "\n".join(lines)


def census_text(census: Census, kept: int, seconds: float, lang: str) -> str:
    lines = [say("z_counted", lang, {"looked": f"{census.looked_at:,}", "seconds": f"{seconds:.2f}",
                                     "small": f"{census.too_small:,}", "unpriced": f"{census.unpriced:,}",
                                     "priced": f"{len(census.builds):,}", "kept": f"{kept:,}"})]  # fmt: skip
    priced = {build.platform.name for build in census.builds}
    lacking = [name for name in census.unpriced_platforms if name not in priced]
    if lacking:
        lines.append(say("z_unpriced", lang, {"count": len(lacking), "names": listed(lacking[:5])}))
    return "\n".join(lines)


def nearest_text(offers: Sequence[Offer], book: PriceBook, lang: str) -> str:
    """Describe the builds nearest to limits that none meets, and which limits each breaks."""
    lines = [say("n_title", lang)]
    for offer in offers:
        decode = offer.build.prediction.decode
        lines.append(say("n_line", lang, {"name": offer.build.name, "price": price_range(offer.build),
                                          "currency": book.currency, "speed": decode.mid}))  # fmt: skip
        for key, values in offer.breaks:
            shown = dict(values)
            for name in ("noise", "most"):
                if key.startswith("x_noise") and name in shown:
                    shown[name] = noise_word(str(shown[name]), lang)
            if key == "x_budget":
                shown = {name: money(float(str(value))) for name, value in values.items()}
            lines.append("    - " + say(key, lang, {**shown, "currency": book.currency}))
    return "\n".join(lines)


def lower_text(offer: Offer, load: Load, book: PriceBook, lang: str) -> list[str]:
    """Describe the quant that meets the limits, its machine, and its quality loss."""
    speed = offer.build.prediction.decode
    drive = [part for part in offer.build.parts if part.price is not None and part.price.category == "ssd"]
    lines = [say("n_lower", lang, {
        "model": load.name, "quant": load.quant, "size": size(1e9 * load.file_gb), "name": offer.build.name,
        "price": price_range(offer.build), "currency": book.currency, "speed": speed.mid, "low": speed.low,
        "high": speed.high}), *(part_line(part, book.currency, lang) for part in drive)]  # fmt: skip
    loss = loss_text(load.quant, load.params_b, lang)
    return [*lines, "  " + loss] if loss else lines


def shown_builds(plan: Plan) -> list[Build]:
    """Return the builds whose bills are shown: the best, or the nearest."""
    offers = plan.ranked[:1] or plan.nearest
    return [offer.build for offer in offers]


def text(plan: Plan, lang: str, top: int) -> str:
    """Render the answer of `seventy plan`."""
    blocks = [headline(plan.load, plan.book, lang, builds=shown_builds(plan))]
    if plan.ranked:
        shown = offers_table(plan.ranked[:top], plan.usage, lang)
        blocks.append(shown + "\n" + say("t_marks", lang) if set("~+*") & set(shown) else shown)
        blocks.append(best_text(plan, lang))
        blocks.append(front_text(plan.front, plan.book, lang))
    elif plan.nearest:
        blocks.append(nearest_text(plan.nearest, plan.book, lang))
    else:
        since = REGIONS.get(plan.book.region, ("", ""))[1]
        early = bool(since) and months(plan.book.month) + LATER_MONTHS < months(since)
        blocks.append(say("n_early", lang, {"region": plan.book.region, "month": since}) if early else (
            say("n_none", lang)))  # fmt: skip
    blocks += instead_text(plan, lang)
    blocks.append(census_text(plan.census, len(plan.kept), plan.seconds, lang))
    return "\n\n".join(blocks)


def instead_text(plan: Plan, lang: str) -> list[str]:
    """Describe what meets the limits instead: fewer bits of the same model, or another model."""
    blocks = ["\n".join(lower_text(*plan.lower, plan.book, lang))] if plan.lower is not None else []
    if plan.instead is not None:
        offer, model = plan.instead
        blocks.append(say("n_instead", lang, {
            **model.values, "speed": model.prediction.decode.mid, "name": offer.build.name,
            "price": price_range(offer.build), "currency": plan.book.currency}))  # fmt: skip
    return blocks


def best_text(plan: Plan, lang: str) -> str:
    """Return the chosen build in full."""
    build, currency = plan.ranked[0].build, plan.book.currency
    decode = build.prediction.decode
    title = say("d_title", lang, {"name": build.name, "price": price_range(build), "currency": currency,
                                  "speed": decode.mid, "low": decode.low, "high": decode.high})  # fmt: skip
    return "\n".join([title, *(part_line(part, currency, lang) for part in build.parts), *about(plan, lang)])
