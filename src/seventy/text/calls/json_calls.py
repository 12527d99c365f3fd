"""Calls written as JSON objects.

Hermes (Qwen, Hermes and many others) writes `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, Llama 3 writes
the bare object, with `parameters`, several divided by semicolons. Small models of the first kind forget the tags: an
answer that begins with the bare object of a tool's call is one in either style.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from seventy.text.calls.base import CallStyle, parameters
from seventy.text.parts import CallArguments, CallStart, Part, Text, overlap

_TAG, _END = "<tool_call>", "</tool_call>"
# How a bare call begins, without its spaces.
_BARE = '{"name"', '{"type"'
_HEAD = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*'
)


class _JsonCalls(CallStyle):
    """`tagged`: calls have tags around them."""

    tagged: ClassVar[bool]

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(names)
        self._held = ""
        # Where calls have no tags around them.
        self._bare = True
        self._state = "start"
        self._scanner: _Value | None = None

    def push(self, piece: str) -> list[Part]:
        self._held += piece
        parts: list[Part] = []
        while self._held and self._advance(parts):
            pass
        return parts

    def flush(self) -> list[Part]:
        held, self._held = self._held, ""
        if self._state == "object" and held.strip():
            return [Text(("" if self._bare else _TAG) + held)]
        if self._state in ("start", "text") and held:
            return [Text(held)]
        return []

    def _advance(self, parts: list[Part]) -> bool:
        """One thing found, or False when more text is needed."""
        return {
            "start": self._start, "text": self._text, "object": self._object, "value": self._value, "rest": self._rest,
        }[self._state](parts)  # fmt: skip

    def _start(self, parts: list[Part]) -> bool:
        begun = "".join(self._held.split())[: len(_BARE[0])]
        if any(begun.startswith(head) for head in _BARE):
            self._state = "object"
        elif begun and not any(head.startswith(begun) for head in _BARE):
            self._state, self._bare = "text", not self.tagged
        return self._state != "start"

    def _text(self, parts: list[Part]) -> bool:
        if self._bare:
            parts.append(Text(self._held))
            self._held = ""
            return False
        at = self._held.find(_TAG)
        if at >= 0:
            self._say(parts, self._held[:at])
            self._held, self._state = self._held[at + len(_TAG) :], "object"
            return True
        keep = overlap(self._held, _TAG)
        # Empty lines before a call, or after one, belong to it.
        shown = self._held[: len(self._held) - keep]
        shown = shown[: len(shown.rstrip())] if keep or self.calls or not shown.strip() else shown
        self._say(parts, shown)
        self._held = self._held[len(shown) :]
        return False

    def _say(self, parts: list[Part], text: str) -> None:
        if text.strip():
            parts.append(Text(text))

    def _object(self, parts: list[Part]) -> bool:
        match = _HEAD.match(self._held)
        if match:
            name = _string(match[1])
            rest = self._held[match.end() :]
            if name in self.names and rest.startswith("{"):
                parts.append(CallStart(self.calls, name))
                self._held, self._state, self._scanner = rest, "value", _Value()
                return True
            if name in self.names and not rest:
                return False
        found = _whole_object(self._held)
        if found is None:
            return False
        value, end = found
        named, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _object_or_none(arguments)
        if isinstance(named, str) and named in self.names and isinstance(arguments, dict):
            parts.append(CallStart(self.calls, named))
            parts.append(CallArguments(self.calls, json.dumps(arguments, ensure_ascii=False)))
            self.calls += 1
            self._held, self._state = self._held[end:], "rest"
        else:
            if not self._bare:
                parts.append(Text(_TAG + self._held))
                self._held = ""
            self._state, self._bare = "text", not self.tagged
        return True

    def _value(self, parts: list[Part]) -> bool:
        assert self._scanner is not None
        end = self._scanner.scan(self._held)
        if end is None:
            parts.append(CallArguments(self.calls, self._held))
            self._held = ""
            return False
        parts.append(CallArguments(self.calls, self._held[:end]))
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
    def grammar(tools: Sequence[Mapping[str, Any]], parallel: bool) -> str:
        rest = ' ("\\n" call)*' if parallel else ""
        schema = _schema(tools, "arguments")
        return f'start: call{rest}\ncall: "{_TAG}\\n" object "\\n{_END}"\nobject: %json {schema}\n'


class Llama3(_JsonCalls):
    one_call_each = True
    tagged = False

    @staticmethod
    def written_by(template: str) -> bool:
        return "tools" in template and _TAG not in template and '"parameters"' in template

    @staticmethod
    def grammar(tools: Sequence[Mapping[str, Any]], parallel: bool) -> str:
        rest = ' (";" call)*' if parallel else ""
        return f"start: call{rest}\ncall: %json {_schema(tools, 'parameters')}\n"


def _schema(tools: Sequence[Mapping[str, Any]], key: str) -> str:
    """The JSON schema of a call of one of these tools, with its arguments under `key`."""
    choices = [
        {
            "type": "object",
            "properties": {"name": {"const": tool["function"]["name"]}, key: parameters(tool)},
            "required": ["name", key],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return json.dumps(choices[0] if len(choices) == 1 else {"anyOf": choices})


class _Value:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth, self._quoted, self._escaped = 0, False, False

    def scan(self, text: str) -> int | None:
        """Where the object ends in this piece, or None when it goes on."""
        for at, c in enumerate(text):
            if self._quoted:
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
                    return at + 1
        return None


def _whole_object(text: str) -> tuple[dict[str, Any], int] | None:
    start = len(text) - len(text.lstrip())
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (value, end) if isinstance(value, dict) else ({}, end)


def _object_or_none(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _string(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""
