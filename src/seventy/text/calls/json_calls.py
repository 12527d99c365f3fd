"""Calls written as JSON objects.

Hermes (Qwen, Hermes and many others) writes `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, Llama 3 writes
the bare object, with `parameters`, several divided by semicolons, sometimes within another object or after
`<|python_tag|>`. Small models of the first kind forget the tags, and coders put a fence in their place: an answer that
begins with the bare object of a tool's call, or is nothing but such objects in fences, is one in either style.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from seventy.text.calls.arguments import named_objects
from seventy.text.calls.base import CallStyle, Tool
from seventy.text.calls.repair import read_object, write
from seventy.text.parts import CallArguments, CallStart, Part, Text, overlap

_TAG, _END = "<tool_call>", "</tool_call>"
_PYTHON_TAG = "<|python_tag|>"
_FENCE = "```"
# How a bare call begins, without its spaces.
_BARE = '{"name"', '{"type"', '{"function"'
_HEAD = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*'
)
_LANGUAGES = ("json", "tool_call")
_OPENED = re.compile(rf"\s*```(?:{'|'.join(_LANGUAGES)})?\s*")
_CLOSED = re.compile(r"\s*```")


class _JsonCalls(CallStyle):
    """`tagged`: calls have tags around them."""

    tagged: ClassVar[bool]

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(tools)
        # Where calls have no tags around them.
        self._bare = True
        self._state = "start"
        self._scanner: _Value | None = None

    def flush(self, cut: bool = False) -> list[Part]:
        held, self._held = self._held, ""
        parts: list[Part] = []
        if self._state == "fence" and (calls := self._fenced(held)):
            for call in calls:
                self._give(parts, call)
        elif self._state == "object" and held.strip():
            meant = None if cut else self._meant(read_object(held))
            if meant is not None:
                self._give(parts, meant)
            elif self._bare or not cut:
                parts.append(Text(("" if self._bare else _TAG) + held))
        elif self._state in ("start", "text", "fence") and held and not (self.calls and (cut or not held.strip())):
            parts.append(Text(held))
        return parts

    def _advance(self, parts: list[Part]) -> bool:
        return {
            "start": self._start, "text": self._text, "object": self._object, "value": self._value, "rest": self._rest,
            "fence": self._fence,
        }[self._state](parts)  # fmt: skip

    def _start(self, parts: list[Part]) -> bool:
        begun = "".join(self._held.split())
        if begun.startswith(_PYTHON_TAG):
            self._held = self._held.split(_PYTHON_TAG, 1)[1]
        elif any(begun.startswith(head) for head in _BARE):
            self._state = "object"
        elif begun.startswith(_FENCE):
            self._state = "fence"
        elif begun and not any(head.startswith(begun) for head in (*_BARE, _FENCE, _PYTHON_TAG)):
            self._become_text()
        else:
            return False
        return True

    def _become_text(self) -> None:
        self._state, self._bare = "text", not self.tagged

    def _fence(self, parts: list[Part]) -> bool:
        """Waits while the answer can be nothing but calls in fences."""
        rest = self._held
        while opened := _OPENED.match(rest):
            rest = rest[opened.end() :]
            if any(word.startswith(rest) for word in _LANGUAGES):
                return False
            found = _whole_object(rest)
            if found is None:
                begun = "".join(rest.split())
                if begun and not any(begun.startswith(head) or head.startswith(begun) for head in (*_BARE, _FENCE)):
                    break
                return False
            if self._meant(found[0]) is None:
                break
            rest = rest[found[1] :]
            closed = _CLOSED.match(rest)
            if closed is None:
                if rest.strip() and not _FENCE.startswith(rest.strip()):
                    break
                return False
            rest = rest[closed.end() :]
        if not rest.strip() or _FENCE.startswith(rest.strip()):
            return False
        self._become_text()
        return True

    def _fenced(self, text: str) -> list[tuple[str, dict[str, Any]]] | None:
        """The calls of an answer that is nothing else."""
        calls = []
        while text.strip():
            opened = _OPENED.match(text)
            found = _whole_object(text[opened.end() :]) if opened else None
            call = self._meant(found[0]) if found else None
            if opened is None or found is None or call is None:
                return None
            calls.append(call)
            text = text[opened.end() + found[1] :]
            closed = _CLOSED.match(text)
            if closed is None:
                return None if text.strip() else calls
            text = text[closed.end() :]
        return calls

    def _text(self, parts: list[Part]) -> bool:
        if self._bare:
            parts.append(Text(self._held))
            self._held = ""
            return False
        at = self._held.find(_TAG)
        if at >= 0:
            if before := self._held[:at].rstrip():
                parts.append(Text(before))
            self._held, self._state = self._held[at + len(_TAG) :], "object"
            return True
        keep = overlap(self._held, _TAG)
        # White space before a call, or after one, belongs to it.
        shown = self._held[: len(self._held) - keep].rstrip()
        if shown:
            parts.append(Text(shown))
        self._held = self._held[len(shown) :]
        return False

    def _object(self, parts: list[Part]) -> bool:
        match = _HEAD.match(self._held)
        name = _string(match[1]) if match else ""
        if match and name in self.tools:
            rest = self._held[match.end() :]
            if not rest or (not rest[1:].strip() and rest[0] == "{"):
                return False
            if rest[0] == "{" and rest[1:].lstrip()[0] in '"}':
                parts.append(CallStart(self.calls, name))
                self._held, self._state, self._scanner = rest, "value", _Value()
                return True
        value, end = _whole_object(self._held) or (None, 0)
        if value is None and not self._bare and (end := self._held.find(_END)) >= 0:
            value = read_object(self._held[:end]) or {}
        if value is None:
            return False
        call = self._meant(value)
        if call is not None:
            self._give(parts, call)
            self._held, self._state = self._held[end:], "rest"
        else:
            if not self._bare:
                parts.append(Text(_TAG + self._held))
                self._held = ""
            self._become_text()
        return True

    def _meant(self, value: dict[str, Any] | None) -> tuple[str, dict[str, Any]] | None:
        """The call that an object stands for, if it is one of these tools."""
        inner = (value or {}).get("function")
        value = inner if isinstance(inner, dict) else value or {}
        name = value.get("name", inner)
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = read_object(arguments)
        return (
            (name, arguments) if isinstance(name, str) and name in self.tools and isinstance(arguments, dict) else None
        )

    def _give(self, parts: list[Part], call: tuple[str, dict[str, Any]]) -> None:
        parts += [CallStart(self.calls, call[0]), CallArguments(self.calls, write(call[1]))]
        self.calls += 1

    def _value(self, parts: list[Part]) -> bool:
        assert self._scanner is not None
        text, end = self._scanner.scan(self._held)
        parts.append(CallArguments(self.calls, text))
        if end is None:
            self._held = ""
            return False
        self.calls += 1
        self._held, self._state = self._held[end:], "rest"
        return True

    def _rest(self, parts: list[Part]) -> bool:
        """What closes a call, and what divides it from the next."""
        if self._bare:
            rest = self._held.lstrip(" \r\n\t};")
            self._held = rest
            self._state = "object" if rest.startswith("{") else "rest" if not rest else "text"
            return bool(rest)
        at = self._held.find(_END)
        if at < 0:
            return False
        self._held, self._state = self._held[at + len(_END) :], "text"
        return True


class Hermes(_JsonCalls):
    markers = (_TAG, _END)
    tagged = True

    @staticmethod
    def written_by(template: str) -> bool:
        return _TAG in template

    @staticmethod
    def grammar(tools: Sequence[Tool], parallel: bool) -> str:
        rest = ' ("\\n" call)*' if parallel else ""
        return f'start: call{rest}\ncall: "{_TAG}\\n" object "\\n{_END}"\n{named_objects(tools, "arguments")}'

    @staticmethod
    def written(calls: Sequence[Mapping[str, Any]]) -> str:
        return "\n".join(
            f"{_TAG}\n{write({key: call[key] for key in ('name', 'arguments')})}\n{_END}" for call in calls
        )


class Llama3(_JsonCalls):
    markers = (_PYTHON_TAG,)
    one_call_each = True
    tagged = False

    @staticmethod
    def written_by(template: str) -> bool:
        return "tools" in template and _TAG not in template and '"parameters"' in template

    @staticmethod
    def grammar(tools: Sequence[Tool], parallel: bool) -> str:
        rest = ' (";" object)*' if parallel else ""
        return f"start: object{rest}\n{named_objects(tools, 'parameters')}"

    @staticmethod
    def written(calls: Sequence[Mapping[str, Any]]) -> str:
        return ";".join(write({"name": call["name"], "parameters": call["arguments"]}) for call in calls)


class _Value:
    """Finds the end of a JSON object that comes in pieces, and writes control characters in its texts as JSON does."""

    def __init__(self) -> None:
        self._depth, self._quoted, self._escaped = 0, False, False

    def scan(self, text: str) -> tuple[str, int | None]:
        """Return the piece up to the end of the object, and the position of that end; None if the object continues."""
        written = list[str]()
        for at, c in enumerate(text):
            if self._quoted and c < " ":
                # A line break after a backslash cannot be meant as an escape.
                c, self._escaped = write(c)[1 if not self._escaped else 2 : -1], False
            elif self._quoted:
                if self._escaped:
                    self._escaped = False
                elif c == "\\":
                    self._escaped = True
                elif c == '"':
                    self._quoted = False
            elif c == '"':
                self._quoted = True
            elif c in "{[":
                self._depth += 1
            elif c in "}]":
                self._depth -= 1
                if not self._depth:
                    return "".join(written) + c, at + 1
            written.append(c)
        return "".join(written), None


def _whole_object(text: str) -> tuple[dict[str, Any], int] | None:
    start = len(text) - len(text.lstrip())
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (value, end) if isinstance(value, dict) else ({}, end)


def _string(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""
