"""Plain tables for a terminal: columns as wide as their text, Chinese characters counted as two."""

import re
import shutil
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def pad(text: str, to: int, right: bool = False) -> str:
    space = " " * max(0, to - width(text))
    return space + text if right else text + space


def terminal_width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def clip(text: str, to: int) -> str:
    """Shorten a text wider than `to` columns, and mark its end."""
    if width(text) <= to:
        return text
    kept = ""
    for char in text:
        if width(kept + char) >= to:
            break
        kept += char
    return kept + "…"


def folded(text: str, to: int) -> list[str]:
    """Break a text into lines of this width, at spaces where possible."""
    lines = [""]
    for word in re.findall(r"[\x21-\x7e]+ *|.[，。；：、）]*", text):
        if lines[-1] and width(lines[-1] + word.rstrip()) > to:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: str, room: int | None = None, wrap: bool = False
) -> str:
    """Aligned text; `right` has an r for each right-aligned column; the widest left column gives way to fit.

    What does not fit is cut off, or goes on in a line of its own with `wrap`.
    """
    room = room or terminal_width()
    widths = [max(width(row[i]) for row in (head, *rows)) for i in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > room:
        widest = max((i for i in range(len(widths)) if right[i] != "r"), key=lambda i: widths[i])
        if widths[widest] <= 12:
            break
        widths[widest] -= 1
    lines = []
    for row in (head, ["-" * w for w in widths], *rows):
        parts = [folded(cell, w) if wrap else [clip(cell, w)] for cell, w in zip(row, widths, strict=True)]
        for cells in zip_longest(*parts, fillvalue=""):
            shown = [pad(cell, w, side == "r") for cell, w, side in zip(cells, widths, right, strict=True)]
            lines.append("  ".join(shown).rstrip())
    return "\n".join(lines)
