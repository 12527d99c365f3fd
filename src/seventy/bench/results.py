"""Cards that people send: checked together, before they count for anything; and the table of all of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from seventy.bench import card as card_files
from seventy.bench.card import Card, Result
from seventy.bench.compare import model_words, quant_words
from seventy.catalog.cpus import Cpu, all_cpus, find_cpu
from seventy.errors import SeventyError
from seventy.language import t

# A desktop's modules may run faster than its CPU is rated for; registered ones do not.
_OVERCLOCKED = 1.6
# What a measurement of memory may be off.
_MEASURED = 1.05


def files(paths: Iterable[Path]) -> list[Path]:
    """List the card files at these paths; a folder stands for all *.json in it."""
    return [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]


def checked(paths: Iterable[Path]) -> list[Card]:
    """Read and check cards. Raises SeventyError for an implausible card or a duplicate."""
    found: dict[tuple[tuple[float, ...], ...], Path] = {}
    cards = []
    for path in files(paths):
        card = card_files.read(path)
        if problem := impossible(card):
            raise SeventyError(
                "{path} is no result card that can be believed: {problem}; measure it again",
                path=path, problem=problem,
            )
        other = found.setdefault(tuple(result.tokens_per_second.values for result in card.results), path)
        if other != path:
            raise SeventyError("{path} is the same run as {other}", path=path, other=other)
        cards.append(card)
    return cards


def impossible(card: Card) -> str | None:
    """Explain why its memory cannot have delivered the bandwidth, by its modules or CPU; return None if it can."""
    machine, slots = card.machine, card.machine.slots
    most, by = slots.theoretical_gbs, t("its modules")
    cpu, _ = find_cpu(machine.cpu, all_cpus())
    if most is None and cpu is not None:
        most, by = _most_gbs(cpu) * machine.sockets, cpu.name
    if most is not None and card.memory_limit_gbs > _MEASURED * most:
        return t(
            "memory gave {memory_limit_gbs:.1f} GB/s, and {by} carry {most:.1f} at most",
            memory_limit_gbs=card.memory_limit_gbs, by=by, most=most,
        )
    return None


def _most_gbs(cpu: Cpu) -> float:
    """GB/s of all channels of one socket, with the fastest memory that it may have."""
    rates = [cpu.mem_speed_mts, *(int(part.split("-")[-1]) for part in cpu.mem_second.split(";") if part)]
    fixed = cpu.soldered or cpu.registered
    return cpu.mem_channels * max(rates) * 8 / 1000 * (1.0 if fixed else _OVERCLOCKED)


def markdown(cards: Sequence[Card], names: Sequence[str]) -> str:
    """Make the table of docs/results.md, the fastest memory first."""
    lines = [
        "| machine | memory, GB/s | threads, ISA | model | quant | decode, tok/s | of memory's limit | prompt, tok/s | "
        "seventy, date | card |",
        "|" + 10 * "---|",
    ]
    ordered = sorted(zip(cards, names, strict=True), key=lambda pair: (-pair[0].memory_limit_gbs, pair[1]))
    for card, name in ordered:
        decode = min((r for r in card.results if r.what == "decode"), key=lambda r: r.depth, default=None)
        prompt = max((r for r in card.results if r.what == "prefill"), key=lambda r: r.n, default=None)
        share = f"{100 * decode.memory_share(card.machine):.0f} %" if decode else "-"
        cells = [
            card.machine.cpu, f"{card.memory_limit_gbs:.1f}", f"{card.threads}, {card.isa}", model_words(card),
            quant_words(card), _speed(decode), share, _speed(prompt), f"{card.seventy}, {card.date}", name,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _speed(result: Result | None) -> str:
    if result is None:
        return "-"
    median = (result.whole_model or result.tokens_per_second).median
    said = f"{median:,.0f}" if median >= 1000 else f"{median:.3g}"
    return f"{said} ({result.versus.ratio:.2f} x llama.cpp)" if result.versus else said
