"""Plain tables for a terminal, by rich: it counts Chinese characters as two columns."""

import io
import shutil
from collections.abc import Sequence

from rich.box import Box
from rich.console import Console, OverflowMethod
from rich.table import Table
from rich.text import Text

# Dashes below the head, and no other lines.
_LINES = Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)


def terminal_width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def clip(text: str, to: int) -> str:
    """Shorten a text wider than `to` columns, and mark its end."""
    shown = Text(text)
    shown.truncate(to, overflow="ellipsis")
    return shown.plain


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: str, room: int | None = None, wrap: bool = False
) -> str:
    """Format aligned text; `right` has an r for each right-aligned column, and the widest others give way to fit.

    What does not fit is cut off, or with `wrap` continues in a line of its own.
    """
    made = Table(box=_LINES, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for name, side in zip(head, right, strict=True):
        made.add_column(Text(name), justify="right" if side == "r" else "left", no_wrap=side == "r")
    # A cell that is cut is not broken, but its column may be narrower than it.
    overflow: OverflowMethod = "fold" if wrap else "ellipsis"
    for row in rows:
        made.add_row(*(Text(cell, no_wrap=not wrap, overflow=overflow) for cell in row))
    out = io.StringIO()
    Console(file=out, width=room or terminal_width(), color_system=None).print(made)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
