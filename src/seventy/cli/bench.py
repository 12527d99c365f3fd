import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from seventy.bench import card as cards
from seventy.bench import peers, plot
from seventy.bench.card import Card
from seventy.bench.engine import WHOLE_PROBE_CACHES
from seventy.bench.quants import quant_name
from seventy.bench.run import Bench, BenchOptions, needed
from seventy.bench.share import paragraph
from seventy.bench.synthetic import Synthetic, choose_layers, find_shape, fitting_layers
from seventy.bench.table import table
from seventy.cli import _session as session
from seventy.cli._card_runs import expected_tok_s
from seventy.cli._console import plain
from seventy.cli.pull import get
from seventy.errors import SeventyError
from seventy.jit.isa import wide_name
from seventy.language import language, said, t
from seventy.measure.profile import Profile, raise_limit
from seventy.runtime.reservations import ledger
from seventy.sizes import size

# Of the texts that --draft writes.
_DRAFT_CONTEXT, _DRAFT_TOKENS = 4096, 200
_AGAINST = "llama.cpp, a Python that has llama-cpp-python, or a llama-bench: takes turns with us on the same file."


def bench(
    model: Annotated[str | None, session.MODEL] = None,
    synthetic: Annotated[str | None, typer.Option(help="A catalogue model's shapes, random weights, no file.")] = None,
    quant: Annotated[str | None, typer.Option(help="The quant of --synthetic; Q4_K_M when not given.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of --synthetic; all when they fit.")] = None,
    prefill: Annotated[list[int] | None, typer.Option(min=1, help="Prompt lengths; may be given again.")] = None,
    decode_at: Annotated[list[int] | None, typer.Option(min=0, help="Depths to decode at; may be given again.")] = None,
    users: Annotated[
        list[int] | None, typer.Option(min=1, max=64, help="Users decoding at once; may be given again.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a decode measurement.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each, after a warm-up.")] = 5,
    against: Annotated[str | None, typer.Option(help=_AGAINST)] = None,
    watts: Annotated[float | None, typer.Option(min=0.1, help="What a meter at the wall shows under load.")] = None,
    tariff: Annotated[float | None, typer.Option(min=0, help="Yuan per kWh: tells yuan per million tokens.")] = None,
    threads: session.Threads = None,
    isa: session.Isa = None,
    draft: Annotated[
        str | None,
        typer.Option(help="Also write three kinds of text with drafts and without: auto, lookup, mtp, a small model."),
    ] = None,
    tune: Annotated[bool, typer.Option(help="Measure anew which threads, width and tiles are best, before.")] = False,
    verbose: session.Verbose = False,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="The roofline, as .svg or .png.")] = None,
    share: Annotated[bool, typer.Option("--share", help="Print a paragraph to paste in a chat or a forum.")] = False,
    report: Annotated[Path | None, typer.Option(help="A result card (JSON) that others can compare.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result card on stdout.")] = False,
) -> None:
    """Time a model here: prompts, answers, several users at once, each beside the machine's limit."""
    wish = BenchOptions(prefill or (), decode_at or (), users or (), tokens, repeats, watts, tariff)
    if plot_file:
        plot.check(plot_file)
    if refused := _refused(model, synthetic, quant, layers, against, threads, draft, tune):
        raise SeventyError(refused)
    peer = peers.program(against) if against else None
    source = _synthetic(synthetic, quant or "Q4_K_M", layers, wish) if synthetic else get(model or "smollm2")
    with session.bars() as progress:
        loaded = Bench.load(source, wish, threads, isa, progress, tune)
    if verbose or tune:
        session.describe(loaded.model, threads)
    try:
        profile, _ = session.machine_limit(loaded.model)
        with session.bars() as progress:
            card = loaded.run(profile, peer, progress)
    finally:
        loaded.model.close()
    _keep_limit(profile, card)
    name = source.name if isinstance(source, Path) else source.path
    if loaded.lost:
        session.say(t("{lost}. The figures are without what it had not done.", lost=loaded.lost))
    print(card.text(), end="") if as_json else _show(card, name)
    if draft and isinstance(source, Path):
        for row in _drafts(source, draft, threads, isa, repeats):
            session.say(row) if as_json else print(said(row))
    if share:
        print(paragraph(card, Path(name).stem, expected_tok_s(card), lang=language()))
    _keep(card, name, plot_file, report)


def _keep(card: Card, name: str, plot_file: Path | None, report: Path | None) -> None:
    """Write the files that were asked for."""
    if plot_file:
        plot.write(card, plot_file, name)
    if report:
        cards.write(card, report)


def _refused(
    model: str | None, synthetic: str | None, quant: str | None, layers: int | None, against: str | None,
    threads: int | None, draft: str | None, tune: bool,
) -> str | None:  # fmt: skip
    """Why these options do not go together, and what to do; None where they do."""
    refusals = [
        (synthetic and against,
         t("--against needs a file that both can read, and --synthetic makes none; name a .gguf file")),
        (synthetic and model,
         t(
             "--synthetic {synthetic} takes no file, and {model} is one; leave one of the two out",
             synthetic=synthetic, model=model,
         )),
        (layers and not synthetic, t(
            "--layers {layers} is for --synthetic; a file has the layers it has",
            layers=layers,
        )),
        (quant and not synthetic, t("--quant {quant} is for --synthetic; a file has the quant it has", quant=quant)),
        (tune and threads, t(
            "--tune chooses the threads, and --threads {threads} says them; give one of the two",
            threads=threads,
        )),
        (draft and synthetic,
         t("--draft needs a model that writes texts, and --synthetic has random weights; name a model")),
        (draft == "off",
         t("--draft off has nothing to compare; give auto, lookup, mtp, or a small model, or leave it out")),
    ]  # fmt: skip
    return next((why for refused, why in refusals if refused), None)


def _keep_limit(profile: Profile, card: Card) -> None:
    """Where memory gave more than was measured before, keep that as the limit of this machine."""
    known, seen = profile.read_bandwidth_gbs, card.memory_limit_gbs
    whole = card.weight_bytes >= WHOLE_PROBE_CACHES * profile.last_level_cache_bytes
    if whole and seen > session.MORE * known and not any(cards.problems(card)) and raise_limit(profile, seen):
        session.say(t(
            "Memory gave {seen:.1f} GB/s, not {known:.1f} as measured before; that is kept as the limit.",
            seen=seen, known=known,
        ))


def _show(card: Card, name: str) -> None:
    """The table on stdout, as wide as the terminal, and what is to be said about it."""
    plain(None if sys.stdout.isatty() else 140).print(table(card, said(_title(card, name))))
    for line in _notes(card):
        session.say(line)


def _drafts(path: Path, draft: str, threads: int | None, isa: str | None, repeats: int) -> Iterator[str]:
    """A line for each kind of text, how fast with drafts and without; then who guessed how much, and what that took."""
    from seventy.bench.drafts import measure
    from seventy.engine.llm import LLM

    with session.bars() as progress:
        draft = session.locate_draft(draft)
        llm = LLM(path, threads, _DRAFT_CONTEXT, isa=isa, progress=progress, draft=draft)
    with llm:
        session.say_draft(llm, draft)
        yield from (kind.line() for kind in measure(llm, _DRAFT_TOKENS, repeats))
        yield from llm.scheduler.drafts.lines()


def _synthetic(name: str, quant: str, layers: int | None, wish: BenchOptions) -> Synthetic:
    shape, quant = find_shape(name), quant_name(quant)
    context = max(needed(task) for task in wish.tasks(shape.context))
    with ledger() as memory:
        count = fitting_layers(shape, quant, context, memory.room, layers)
    if count < shape.layers:
        session.say(t(
            "{name} has {layers} layers; {count} are made, and the rest is extrapolated",
            name=shape.name, layers=shape.layers, count=count,
        ))
    return Synthetic(shape, quant, choose_layers(shape, quant, count))


def _title(card: Card, name: str) -> str:
    layers = ""
    if card.model.layers < card.model.whole_layers:
        layers = t(
            ", {layers} of {whole_layers} layers",
            layers=card.model.layers, whole_layers=card.model.whole_layers,
        )
    against = ""
    if card.peer:
        built = t(", built for {isa}", isa=card.peer.isa) if card.peer.isa else ""
        against = t(", against {name} ({version}{built})", name=card.peer.name, version=card.peer.version, built=built)
    token = t(
        ", {token_bytes} read for a token",
        token_bytes=size(card.model.token_bytes),
    ) if card.model.experts else ""
    return (
        t(
            "{name}{layers}, {threads} threads, {isa}{against}\n{weight_bytes} of weights{token}, loaded in "
            "{load_seconds:.1f} s; at most {peak_memory_bytes} of memory",
            name=name, layers=layers, threads=card.threads, isa=card.isa, against=against,
            weight_bytes=size(card.weight_bytes), token=token, load_seconds=card.load_seconds,
            peak_memory_bytes=size(card.peak_memory_bytes),
        )
    )


def _notes(card: Card) -> list[str]:
    notes = []
    if card.peer and card.peer.isa not in (None, wide_name(card.isa)):
        notes.append(
            t(
                "{name} was built for {isa} and seventy ran {ours}: these are not the same instructions on both "
                "sides",
                name=card.peer.name, isa=card.peer.isa, ours=card.isa,
            )
        )
    if not card.machine.int8_gops:
        notes.append(t("This machine's int8 peak is not known; for shares of it, run once: seventy measure"))
    if card.model.layers < card.model.whole_layers:
        notes.append(
            t(
                "Extrapolated: the time of {layers} layers for all {whole_layers}, and the head's, both measured, "
                "and joules with it; GB/s and GOPS are of what ran.",
                layers=card.model.layers, whole_layers=card.model.whole_layers,
            )
        )
    if card.energy and card.energy.source == "rapl":
        notes.append(t("Joules are what CPU and memory counted (RAPL); the box at the wall takes more: --watts"))
    if card.energy is None:
        notes.append(t("This machine counts no joules; for J/token give a wall meter's figure: --watts"))
    return notes
