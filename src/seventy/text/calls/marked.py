"""Calls between two marks, read when they are whole: what most families have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from seventy.text.calls.base import CallStyle
from seventy.text.calls.repair import write
from seventy.text.parts import CallArguments, CallStart, Part, Text, overlap

Call = tuple[str, dict[str, Any]]


class Marked(CallStyle):
    """`begin` and `end` are the marks of a call, `wrappers` those around one or several, which say nothing.

    A call of a tool that was not offered, and what cannot be read as one, stay text.
    """

    begin: ClassVar[str]
    end: ClassVar[str]
    wrappers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(tools)
        # Wrappers and spaces that are text unless a call follows them.
        self._before = ""

    def _read(self, body: str) -> list[Call]:
        """The calls between the marks; ValueError where there are none."""
        raise NotImplementedError

    def _extent(self, held: str) -> tuple[int, int] | None:
        """Where the body that begins after the mark ends, and where its mark does; None when more must come."""
        at = held.find(self.end, len(self.begin))
        return None if at < 0 else (at, at + len(self.end))

    def flush(self, cut: bool = False) -> list[Part]:
        parts: list[Part] = []
        held, self._held = self._held, ""
        if held.startswith(self.begin):
            if cut or self._call(held[len(self.begin) :], parts):
                return parts
        elif (cut or not held) and (self.calls or (cut and self._before.strip())):
            return parts
        if text := self._before + held:
            parts.append(Text(text))
        return parts

    def _advance(self, parts: list[Part]) -> bool:
        if self._held.startswith(self.begin):
            extent = self._extent(self._held)
            if extent is None:
                return False
            body, end = extent
            if not self._call(self._held[len(self.begin) : body], parts):
                self._say(parts, self._held[:end])
            self._held = self._held[end:]
            return True
        marks = (self.begin, *self.wrappers)
        found = min(((at, mark) for mark in marks if (at := self._held.find(mark)) >= 0), default=None)
        if found is None:
            keep = overlap(self._held, *marks)
            text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            self._say(parts, text)
            return False
        at, mark = found
        self._say(parts, self._held[:at])
        if mark == self.begin:
            self._held = self._held[at:]
        else:
            self._before += mark
            self._held = self._held[at + len(mark) :]
        return True

    def _say(self, parts: list[Part], text: str) -> None:
        """Text, but for white space at its end: before a call, or after one, that belongs to the call."""
        shown = text.rstrip()
        if shown:
            parts.append(Text(self._before + shown))
            self._before = ""
        self._before += text[len(shown) :]

    def _call(self, body: str, parts: list[Part]) -> bool:
        try:
            calls = self._read(body)
        except ValueError:
            return False
        if not calls or any(name not in self.tools for name, _ in calls):
            return False
        for name, arguments in calls:
            parts += [CallStart(self.calls, name), CallArguments(self.calls, write(arguments))]
            self.calls += 1
        self._before = ""
        return True


def names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    return [tool["function"]["name"] for tool in tools]
