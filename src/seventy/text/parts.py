"""What an answer is made of: thinking, text, and calls of tools, in pieces as they come."""

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer that is no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of the arguments, as JSON text."""

    index: int
    text: str


Part = Thought | Text | CallStart | CallArguments


class Splitter(ABC):
    """Splits an answer that comes in pieces into parts; `_held` is the text that has not been split yet."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, piece: str) -> list[Part]:
        """Feed a piece of the answer; return the parts that are complete enough to show."""
        self._held += piece
        parts: list[Part] = []
        while self._held and self._advance(parts):
            pass
        return parts

    @abstractmethod
    def _advance(self, parts: list[Part]) -> bool:
        """Move the first thing found in `_held` to the parts; return False when more text is needed."""


def overlap(text: str, *marks: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of one of `marks`."""
    longest = max(map(len, marks), default=1) - 1
    lengths = range(min(len(text), longest), 0, -1)
    return next((n for n in lengths if any(len(mark) > n and mark.startswith(text[-n:]) for mark in marks)), 0)
