"""A result card in one paragraph of at most 200 characters, or as a picture, to paste in a chat or a forum."""

import importlib.util
from pathlib import Path
from typing import Any

from seventy.bench.card import Card, Result
from seventy.errors import SeventyError
from seventy.language import said, t
from seventy.sizes import size

MOST_CHARACTERS = 200
# Of a price, which is in the user's words.
_PRICE = 40
_TEXT = t(
    "{machine}, {memory}{price}: {model} writes {speed} tok/s, {share} % of what its memory allows "
    "(predicted {predicted}). seventy {version}"
)


def decoded(card: Card) -> Result | None:
    """Return the card's decode result at the smallest depth, or None if it has none."""
    found = [result for result in card.results if result.what == "decode"]
    return min(found, key=lambda result: result.depth, default=None)


def paragraph(card: Card, model: str, expected_tok_s: float | None, price: str = "", lang: str = "en") -> str:
    """Machine, price, model, speed, its share of the memory's limit and the speed predicted beside it.

    `expected_tok_s` is the predicted decode of the layers that ran (plan/recalibrate.py); `lang` is en or zh.
    Names give way where the whole would have more than 200 characters. Raises ValueError for a card without a decode.
    """
    result = decoded(card)
    if result is None or expected_tok_s is None:
        raise ValueError(t("it holds no decode; measure with --decode-at 0"))
    speeds = result.whole_model or result.tokens_per_second
    layers = card.model.whole_layers / card.model.layers if result.whole_model else 1.0
    predicted = expected_tok_s / layers
    values = {
        "memory": size(card.machine.memory_bytes),
        "price": t(", {price}", price=price[:_PRICE]) if price else "",
        "speed": f"{speeds.median:.3g}", "share": round(100 * result.memory_share(card.machine)),
        "predicted": f"{predicted:.3g}", "version": card.seventy,
    }  # fmt: skip
    room = MOST_CHARACTERS - len(said(t(_TEXT, machine="", model="", **values), lang))
    machine = card.machine.cpu[: max(8, room // 2)].strip()
    return said(t(_TEXT, machine=machine, model=model[: max(8, room - len(machine))].strip(), **values), lang)


def picture(card: Card, model: str, path: Path, price: str = "") -> None:
    """Write the card's figures as a PNG that fills a phone (1080 x 1350): speed first.

    Needs matplotlib, whose usual fonts have no Chinese; it is English. Raises ValueError for a card without a decode,
    SeventyError where the file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise SeventyError("--picture {path} needs matplotlib (pip install matplotlib)", path=path)
    result = decoded(card)
    if result is None:
        raise ValueError(t("it holds no decode; measure with --decode-at 0"))
    speeds = result.whole_model or result.tokens_per_second
    share = result.memory_share(card.machine)
    figure: Any = importlib.import_module("matplotlib.figure").Figure(figsize=(5.4, 6.75), dpi=200, facecolor="#ffffff")
    lines = [
        (0.86, 15, "#555555", model[:44]), (0.66, 64, "#0b62c4", f"{speeds.median:.3g}"),
        (0.56, 18, "#222222", "tokens a second"), (0.44, 15, "#222222", f"{100 * share:.0f} % of what memory allows"),
        (0.30, 13, "#222222", card.machine.cpu[:52]),
        (0.24, 13, "#222222", size(card.machine.memory_bytes) + (f", {price}" if price else "")),
        (0.08, 11, "#555555", f"seventy {card.seventy}, {card.date}"),
    ]  # fmt: skip
    for y, points, colour, text in lines:
        figure.text(0.08, y, text, fontsize=points, color=colour)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise SeventyError(
            "cannot write {path}: {reason}; take another place for --picture",
            path=path, reason=error.strerror,
        ) from None
