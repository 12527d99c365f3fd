"""Result cards side by side, and as rows of the catalogue."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, replace

from rich.table import Table

from seventy.bench.card import Card, Result, Samples
from seventy.catalog.measurements import Measurement
from seventy.formats import by_name
from seventy.language import said, t


def side_by_side(cards: Sequence[Card], names: Sequence[str]) -> Table:
    """Make a table with a column per card and a row per task. Ratios are to the first card, for the same model only."""
    table = Table()
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for title, cells in {
        "CPU": [card.machine.cpu for card in cards],
        t("cores, threads, ISA"): [f"{card.machine.cores}, {card.threads}, {card.isa}" for card in cards],
        t("DIMMs, channels"): [_memory(card) for card in cards],
        t("memory, GB/s"): [f"{card.memory_limit_gbs:.1f}" for card in cards],
        t("int8, GOPS"): [f"{card.int8_limit_gops:.0f}" if card.int8_limit_gops else t("unknown") for card in cards],
        t("model"): [model_words(card) for card in cards],
        t("quant, cache"): [f"{quant_words(card)}, {card.kv}" for card in cards],
        t("date"): [card.date for card in cards],
    }.items():
        table.add_row(said(title), *map(said, cells))
    table.add_section()
    # How long a context was wanted does not change the model.
    alike = [replace(card.model, context=1) == replace(cards[0].model, context=1) for card in cards]
    labels = list(dict.fromkeys(result.label for card in cards for result in card.results))
    for label in labels:
        found = [next((result for result in card.results if result.label == label), None) for card in cards]
        table.add_row(said(t("{label}, tok/s", label=label)), *_ratios(found, alike))
    return table


def catalogue_row(card: Card, id: str, group: str, source: str) -> Measurement:
    """Convert a card to a row of catalog/data/measurements.csv; its source is not in the card and must be given.

    The row describes what ran: only the layers that were present, and decoding at the smallest depth. It notes random
    weights and CPUs in virtual machines.
    """
    slots, shape = card.machine.slots, card.model
    decode = min((result for result in card.results if result.what == "decode"), key=lambda r: r.depth, default=None)
    prefill = next((result for result in card.results if result.what == "prefill"), None)
    if decode is None:
        raise ValueError(t("nothing was decoded"))
    stated, limit = slots.theoretical_gbs is not None, decode.read_limit_gbs
    speeds = [slot.mts or slot.rated_mts for slot in slots.filled]
    notes = [f"{card.isa}, {card.threads} threads"]
    notes += ["random weights"] if shape.synthetic else []
    if shape.layers < shape.whole_layers:
        notes.append(f"{shape.layers} of {shape.whole_layers} layers")
    # Of a mixture what a token multiplies by, two operations each.
    active = decode.gops * 1e9 / decode.tokens_per_second.median / 2 if shape.experts else parameters(card)
    hypervisor = card.machine.settings.hypervisor
    return Measurement(
        id=id,
        group=group,
        cpu=card.machine.cpu,
        machine="",
        sockets=card.machine.sockets,
        cores=card.machine.cores,
        threads=card.threads,
        layout="stated" if stated else "measured",
        channels=float(slots.filled_channels) if stated else None,
        mts=min(speeds) if stated else None,
        bandwidth_gbs=round(limit.median if limit else card.machine.read_bandwidth_gbs, 1),
        model=model_words(card),
        params_b=round(parameters(card) / 1e9, 2),
        active_params_b=round(active / 1e9, 2),
        layers=shape.layers,
        quant=quant_words(card),
        file_gib=round(card.weight_bytes / 2**30, 2),
        context=decode.depth,
        engine="seventy",
        decode_tok_s=round(decode.tokens_per_second.median, 3),
        prefill_tok_s=round(prefill.tokens_per_second.median, 2) if prefill else None,
        exclude=f"a virtual machine ({hypervisor})" if hypervisor else "",
        source=source,
        date=card.date[:7],
        notes="; ".join(notes),
    )


def as_csv(rows: Sequence[Measurement]) -> str:
    """Format rows as lines of measurements.csv."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(Measurement.__dataclass_fields__), lineterminator="\n")
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in asdict(row).items()})
    return out.getvalue()


def _speed(result: Result) -> Samples:
    """Of the whole model, extrapolated where layers were left out."""
    return result.whole_model or result.tokens_per_second


def _ratios(found: Sequence[Result | None], alike: Sequence[bool]) -> list[str]:
    cells = []
    for result, same in zip(found, alike, strict=True):
        text = f"{_speed(result).median:.2f} ±{_speed(result).spread:.0%}" if result else ""
        if result and found[0] and same and result is not found[0]:
            text += f" ({_speed(result).median / _speed(found[0]).median:.2f} x)"
        cells.append(text)
    return cells


def _memory(card: Card) -> str:
    slots = card.machine.slots
    if not slots.filled:
        return t("unknown")
    channels = t(
        ", {filled_channels} of {channels} channels",
        filled_channels=slots.filled_channels, channels=slots.channels,
    ) if slots.channels else ""
    return t("{filled}{channels}", filled=len(slots.filled), channels=channels)


def model_words(card: Card) -> str:
    shape = card.model
    kind = t("random weights, ") if shape.synthetic else ""
    layers = t("{layers} of ", layers=shape.layers) if shape.layers < shape.whole_layers else ""
    experts = t(
        ", {experts_used} of {experts} experts",
        experts_used=shape.experts_used, experts=shape.experts,
    ) if shape.experts else ""
    return t(
        "{architecture}, {kind}{layers}{whole_layers} layers of {hidden}{experts}",
        architecture=shape.architecture, kind=kind, layers=layers, whole_layers=shape.whole_layers,
        hidden=shape.hidden, experts=experts,
    )


def quant_words(card: Card) -> str:
    """Return the tensor type of most of the model's bytes."""
    return max(card.model.format_bytes, key=lambda name: card.model.format_bytes[name])


def parameters(card: Card) -> float:
    formats = {name: by_name(name) for name in card.model.format_bytes}
    return sum(nbytes / formats[name].nbytes * formats[name].block for name, nbytes in card.model.format_bytes.items())
