"""Ends an answer at a given text, also when it arrives in pieces."""

from collections.abc import Sequence


class StopStrings:
    """Text that may be the beginning of a stop string is held back until it is known whether it is.

    `found` is the stop string that came, if one has.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = self.found = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Feed a piece of text; return what may be shown, and whether a stop string was found.

        The stop string and what follows it are not shown.
        """
        if not self._stops:
            return piece, False
        text = self._held + piece
        # The one that ends first has come first; of those that end together, the longest.
        found = min(((at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0), default=None)
        if found is not None:
            self._held, self.found = "", text[found[1] : found[0]]
            return text[: found[1]], True
        hold = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold], False

    def flush(self) -> str:
        """Return the text that was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """The most characters at the end of `text` that `stop` begins with."""
        return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
