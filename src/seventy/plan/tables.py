"""Plain tables for a terminal: columns as wide as their text, Chinese characters counted as two."""

import shutil
import unicodedata
from collections.abc import Sequence


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def pad(text: str, to: int, right: bool = False) -> str:
    space = " " * max(0, to - width(text))
    return space + text if right else text + space


def terminal_width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def clip(text: str, to: int) -> str:
    """The text, its end replaced by a mark where it is wider than `to`."""
    if width(text) <= to:
        return text
    kept = ""
    for char in text:
        if width(kept + char) >= to:
            break
        kept += char
    return kept + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: str, room: int | None = None) -> str:
    """Aligned text; `right` has an r for each right-aligned column; the widest left column gives way to fit."""
    room = room or terminal_width()
    widths = [max(width(row[i]) for row in (head, *rows)) for i in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > room:
        widest = max((i for i in range(len(widths)) if right[i] != "r"), key=lambda i: widths[i])
        if widths[widest] <= 12:
            break
        widths[widest] -= 1
    lines = []
    for row in (head, ["-" * w for w in widths], *rows):
        cells = [pad(clip(cell, w), w, side == "r") for cell, w, side in zip(row, widths, right, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
