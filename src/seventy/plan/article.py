"""The article's machines and its CPU ranking, beside what the prediction says of them."""

from seventy.catalog.article import Article, ArticleBuild, the_article
from seventy.catalog.book import PriceBook
from seventy.catalog.cpus import Cpu, all_cpus
from seventy.catalog.platforms import all_platforms
from seventy.language import Message, listed, said, t
from seventy.plan.answers import band_json
from seventy.plan.builds import Build, enumerate_builds
from seventy.plan.cost import Usage, cost_of
from seventy.plan.machine import machine_from_cpu, machine_from_parts
from seventy.plan.memory import Dimms, parse_dimms
from seventy.plan.rank import Constraints, best, offers
from seventy.plan.roofline import Prediction, predict
from seventy.plan.tables import table
from seventy.plan.wanted import catalogue_load
from seventy.plan.words import number, say
from seventy.runtime.memory import USUAL_CONTEXT
from seventy.sizes import size


def predicted(build: ArticleBuild, article: Article, filled: bool = False) -> Prediction:
    """Predict a build's 70B speed as bought or, with `filled`, with a module in every channel."""
    load = catalogue_load(article.model, article.quant)
    dimms = parse_dimms(build.memory)
    machine = machine_from_parts(build.cpu, build.sockets, dimms)
    if filled:
        dimms = Dimms(round(machine.channels_total), dimms.gb, dimms.mts)
        machine = machine_from_parts(build.cpu, build.sockets, dimms)
    return predict(machine, load)


def cpu_speed(cpu: Cpu, article: Article) -> Prediction:
    """Predict the 70B speed of one such CPU with every channel filled at its rated speed."""
    return predict(machine_from_cpu(cpu, 1, None), catalogue_load(article.model, article.quant))


_ORDERED = t("Z440, as ordered")


def builds_table(lang: str, room: int | None = None) -> str:
    article = the_article()
    rows = []
    for build in article.builds:
        bought, full = predicted(build, article), predicted(build, article, filled=True)
        rows.append([
            said(Message(build.name), lang),
            f"{build.sockets}x {build.cpu.split(' ', 1)[1]}", build.memory, number(float(build.total_cny)),
            f"{bought.machine.channels:g}/{bought.machine.channels_total:g}",
            f"{number(bought.decode.low)}-{number(bought.decode.high)}", number(bought.decode.mid),
            number(full.decode.mid), number(bought.prefill.mid),
        ])  # fmt: skip
    head = [say(key, lang) for key in ("a_build", "a_cpu", "a_memory", "a_price", "a_channels", "a_range", "a_mid",
                                       "a_filled", "a_prefill")]  # fmt: skip
    return table(head, rows, "lllrrrrrr", room)


def ranking_table(lang: str, room: int | None = None) -> str:
    article = the_article()
    cpus = {cpu.name: cpu for cpu in all_cpus()}
    rows = []
    for name, mark, price in article.ranking:
        cpu, found = cpus[name], cpu_speed(cpus[name], article)
        rows.append((found.decode.mid, [
            name, f"{mark}", f"{price:g}" if price else "-", f"{mark / price:.0f}" if price else "-",
            f"{cpu.mem_channels:g}x{cpu.mem_type}-{cpu.mem_speed_mts}", number(found.machine.peak_gbs),
            number(found.decode.mid),
            f"{1000 * found.decode.mid / price:.2g}" if price else "-",
        ]))  # fmt: skip
    rows.sort(key=lambda row: -row[0])
    head = [say(key, lang) for key in ("a_cpu", "a_mark", "a_price", "a_mark_price", "a_channels_of", "a_peak", "a_mid",
                                       "a_speed_price")]  # fmt: skip
    return table(head, [row for _, row in rows], "lrrrlrrr", room)


def needs_text(lang: str) -> str:
    """Explain whether 256 GB are needed for a 70B, with the arithmetic."""
    article = the_article()
    load = catalogue_load(article.model, article.quant)
    lines = []
    for context in (USUAL_CONTEXT, 32768):
        need = load.need(context)
        lines.append(say("a_needs", lang, {
            "context": context, "file": size(need.weights), "kv": size(need.cache),
            "engine": size(need.rows + need.process), "total": size(need.total)}))  # fmt: skip
    big = catalogue_load("deepseek-r1", "Q2_K")
    lines.append(say("a_needs_not", lang, {"other": big.name, "other_size": size(big.need(USUAL_CONTEXT).total)}))
    return "\n".join(lines)


def mistake_text(lang: str) -> str:
    """Show the effect of empty memory channels in figures."""
    article = the_article()
    by_name = {build.name: build for build in article.builds}
    one, four = predicted(by_name[_ORDERED], article), predicted(by_name["Z440"], article)
    return say("a_mistake", lang, {
        "one": one.decode.mid, "four": four.decode.mid, "times": four.decode.mid / one.decode.mid,
        "low": four.decode.low, "high": four.decode.high,
    })  # fmt: skip


def same_money_text(lang: str) -> str:
    """Show what the catalogue would have bought for the price of each of the article's builds, at the same prices."""
    article = the_article()
    load = catalogue_load(article.model, article.quant)
    book = PriceBook("CN", article.date, infer=False)
    census = enumerate_builds(load, 4096, "llama.cpp", book, all_platforms(), all_cpus())
    own_drive = enumerate_builds(load, 4096, "llama.cpp", book, all_platforms(), all_cpus(), own_drive=True)
    lines = [say("a_same", lang)]
    tariff = book.electricity()
    usage = Usage(6.0, tariff.each if tariff else 0.55, 3.0)
    for build in article.builds:
        # The machine ordered was priced without its SSD, which he had.
        priced = own_drive if build.total_cny == article.ordered_cny else census
        found = offers(priced.builds, Constraints(budget=build.total_cny), usage)
        chosen = best([offer for offer in found if not offer.breaks], "speed")
        quiet = [offer for offer in chosen if not offer.build.platform.rack]
        for key, offer in (("a_same_any", chosen[0] if chosen else None), ("a_same_home", quiet[0] if quiet else None)):
            if offer is not None and not (key == "a_same_home" and offer is chosen[0]):
                lines.append(say(key, lang, {
                    "name": Message(build.name), "budget": build.total_cny, "build": offer.build.name,
                    "price": offer.build.price, "speed": offer.build.prediction.decode.mid,
                    "kwh": offer.cost.kwh_per_day}))  # fmt: skip
    return "\n".join(lines)


def power_text(lang: str) -> str:
    """Show the kilowatt-hours per day of the article's builds, beside the article's own figures."""
    article = the_article()
    bodies = {body.name: body for body in all_platforms()}
    load = catalogue_load(article.model, article.quant)
    figures = []
    for build in article.builds[:5]:
        machine = machine_from_parts(build.cpu, build.sockets, parse_dimms(build.memory))
        assert machine.cpu is not None, build.cpu
        whole = Build(
            bodies[build.platform], machine.cpu, build.sockets, parse_dimms(build.memory), (),
            build.total_cny, build.total_cny, build.total_cny, predict(machine, load),
        )  # fmt: skip
        figures.append(f"{build.name} {cost_of(whole, Usage(6.0, 0.55, 1.0)).kwh_per_day:.1f}")
    return say("a_power", lang, {"figures": listed(figures)})


def article_text(lang: str, room: int | None = None) -> str:
    article = the_article()
    return "\n\n".join([
        say("a_title", lang, {"date": article.date, "source": article.source}),
        builds_table(lang, room), mistake_text(lang), needs_text(lang), power_text(lang), same_money_text(lang),
        say("a_ranking", lang), ranking_table(lang, room),
    ])  # fmt: skip


def article_json() -> dict[str, object]:
    """Return the comparison with the article as data."""
    article = the_article()
    return {
        "source": article.source, "date": article.date, "model": article.model, "quant": article.quant,
        "builds": [
            {
                "name": build.name, "cpu": build.cpu, "sockets": build.sockets, "memory": build.memory,
                "total_cny": build.total_cny, "decode_tok_s": band_json(predicted(build, article).decode),
                "filled_decode_tok_s": band_json(predicted(build, article, filled=True).decode),
            }
            for build in article.builds
        ],
        "ranking": [
            {"cpu": name, "passmark": mark, "price_cny": price or None, "decode_tok_s": band_json(
                cpu_speed(next(cpu for cpu in all_cpus() if cpu.name == name), article).decode)}
            for name, mark, price in article.ranking
        ],
    }  # fmt: skip
