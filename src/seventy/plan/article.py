"""The article's machines and its CPU ranking, beside what the prediction says of them."""

from seventy.catalog.article import Article, ArticleBuild, the_article
from seventy.catalog.cpus import Cpu, all_cpus
from seventy.plan.machine import machine_from_cpu, machine_from_parts
from seventy.plan.memory import Dimms, parse_dimms
from seventy.plan.roofline import Prediction, predict
from seventy.plan.tables import table
from seventy.plan.wanted import catalogue_load
from seventy.plan.words import number, say


def predicted(build: ArticleBuild, article: Article, filled: bool = False) -> Prediction:
    """A build's 70B speed as bought or, with `filled`, with a module in every channel."""
    load = catalogue_load(article.model, article.quant)
    dimms = parse_dimms(build.memory)
    machine = machine_from_parts(build.cpu, build.sockets, dimms)
    if filled:
        dimms = Dimms(round(machine.channels_total), dimms.gb, dimms.mts)
        machine = machine_from_parts(build.cpu, build.sockets, dimms)
    return predict(machine, load)


def cpu_speed(cpu: Cpu, article: Article) -> Prediction:
    """70B on one such CPU with every channel filled at its rated speed."""
    return predict(machine_from_cpu(cpu, 1, None), catalogue_load(article.model, article.quant))


def builds_table(lang: str, room: int | None = None) -> str:
    article = the_article()
    rows = []
    for build in article.builds:
        bought, full = predicted(build, article), predicted(build, article, filled=True)
        rows.append([
            build.name, f"{build.sockets}x {build.cpu.split(' ', 1)[1]}", build.memory, number(float(build.total_cny)),
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
    """Whether 256 GB are needed for a 70B, with the arithmetic."""
    article = the_article()
    load = catalogue_load(article.model, article.quant)
    lines = []
    for context in (4096, 32768):
        kv = load.kv_bytes_per_token * context / 1e9
        lines.append(say("a_needs", lang, {
            "context": context, "file": load.file_gb, "kv": kv, "total": load.memory_gb(context)}))  # fmt: skip
    big = catalogue_load("deepseek-r1", "Q2_K")
    lines.append(say("a_needs_not", lang, {"other": big.name, "other_gb": big.memory_gb(4096)}))
    return "\n".join(lines)


def mistake_text(lang: str) -> str:
    """The channel mistake, in figures."""
    article = the_article()
    by_name = {build.name: build for build in article.builds}
    one, four = predicted(by_name["Z440, as ordered"], article), predicted(by_name["Z440"], article)
    return say("a_mistake", lang, {
        "one": one.decode.mid, "four": four.decode.mid, "times": four.decode.mid / one.decode.mid,
        "low": four.decode.low, "high": four.decode.high,
    })  # fmt: skip


def article_text(lang: str, room: int | None = None) -> str:
    article = the_article()
    return "\n\n".join([
        say("a_title", lang, {"date": article.date, "source": article.source}),
        builds_table(lang, room), mistake_text(lang), needs_text(lang),
        say("a_ranking", lang), ranking_table(lang, room),
    ])  # fmt: skip
