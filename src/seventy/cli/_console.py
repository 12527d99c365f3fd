"""Consoles for texts with names in them, which are shown as they are: [brackets] are no markup, :colons: no emoji."""

from rich.console import Console


def plain(width: int | None = None, stderr: bool = False) -> Console:
    """Return a console that takes nothing in a text for markup."""
    return Console(width=width, stderr=stderr, highlight=False, markup=False, emoji=False)
