"""Tool calls: how models are told of tools, and how their calls are read from the text as it comes.

Two styles: Hermes (Qwen, Hermes and many others) writes `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`,
Llama 3 writes the bare object, with `parameters`, several divided by semicolons. Small models of the first kind forget
the tags: an answer that begins with the bare object of a tool's call is one in either style. A model whose template
knows no tools is told of them, in Hermes' words, in its system prompt.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HERMES, LLAMA3 = "hermes", "llama3"
_TAG, _END = "<tool_call>", "</tool_call>"
# How a bare call begins, without its spaces.
_BARE = '{"name"', '{"type"'
_HEAD = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*'
)
# From Hermes' own template (NousResearch), which Qwen 2.5 follows.
_INSTRUCTIONS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def style(template: str) -> str:
    """How a model with this chat template writes its calls."""
    return LLAMA3 if "tools" in template and _TAG not in template and '"parameters"' in template else HERMES


def describe(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages for a template that knows no tools: told of them in the system prompt, calls and answers as text."""
    plain: list[dict[str, Any]] = []
    for message in messages:
        content = message.get("content") or ""
        if message["role"] == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if plain and plain[-1]["role"] == "user" and plain[-1]["content"].startswith("<tool_response>"):
                plain[-1]["content"] += "\n" + content
                continue
            plain.append({"role": "user", "content": content})
            continue
        for call in message.get("tool_calls") or ():
            function = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
            content += f"{chr(10) if content else ''}{_TAG}\n{json.dumps(function, ensure_ascii=False)}\n{_END}"
        plain.append({"role": message["role"], "content": content})
    if tools:
        lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        words = _INSTRUCTIONS.format(tools=lines)
        if plain and plain[0]["role"] == "system":
            plain[0]["content"] += "\n\n" + words
        else:
            plain.insert(0, {"role": "system", "content": words})
    return plain


def one_call_each(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages for templates that take one call in a message (Llama 3): each call followed by its own answer."""
    flat: list[dict[str, Any]] = []
    answers = {m.get("tool_call_id"): m for m in messages if m["role"] == "tool" and m.get("tool_call_id")}
    used = set[int]()
    for message in messages:
        calls = message.get("tool_calls") or ()
        if len(calls) > 1:
            for call in calls:
                flat.append({**message, "tool_calls": [call]})
                if (answer := answers.get(call.get("id"))) is not None:
                    flat.append(answer)
                    used.add(id(answer))
        elif id(message) not in used:
            flat.append(message)
    return flat


def grammar(tools: Sequence[Mapping[str, Any]], style: str, parallel: bool) -> str:
    """A grammar (llguidance's Lark) of answers that call one of these tools, or several."""
    key = "parameters" if style == LLAMA3 else "arguments"
    choices = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                key: tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", key],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    schema = json.dumps(choices[0] if len(choices) == 1 else {"anyOf": choices})
    if style == LLAMA3:
        rest = ' (";" call)*' if parallel else ""
        return f"start: call{rest}\ncall: %json {schema}\n"
    rest = ' ("\\n" call)*' if parallel else ""
    return f'start: call{rest}\ncall: "{_TAG}\\n" object "\\n{_END}"\nobject: %json {schema}\n'


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


Part = Text | CallStart | CallArguments


class ToolCalls:
    """Reads calls of the named tools from the pieces of an answer; what is no call is text, late but whole."""

    def __init__(self, names: Sequence[str], style: str) -> None:
        self._names, self._style = frozenset(names), style
        self._held = ""
        # Where calls have no tags around them.
        self._bare = True
        self._state = "start"
        self._scanner: _Value | None = None
        self.calls = 0

    def push(self, piece: str) -> list[Part]:
        self._held += piece
        parts: list[Part] = []
        while self._held and self._advance(parts):
            pass
        return parts

    def flush(self) -> list[Part]:
        """What was held back, at the end."""
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
            self._state, self._bare = "text", self._style == LLAMA3
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
        keep = next((n for n in range(len(_TAG) - 1, 0, -1) if self._held.endswith(_TAG[:n])), 0)
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
            if name in self._names and rest.startswith("{"):
                parts.append(CallStart(self.calls, name))
                self._held, self._state, self._scanner = rest, "value", _Value()
                return True
            if name in self._names and not rest:
                return False
        found = _whole_object(self._held)
        if found is None:
            return False
        value, end = found
        named, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = _object_or_none(arguments)
        if isinstance(named, str) and named in self._names and isinstance(arguments, dict):
            parts.append(CallStart(self.calls, named))
            parts.append(CallArguments(self.calls, json.dumps(arguments, ensure_ascii=False)))
            self.calls += 1
            self._held, self._state = self._held[end:], "rest"
        else:
            if not self._bare:
                parts.append(Text(_TAG + self._held))
                self._held = ""
            self._state, self._bare = "text", self._style == LLAMA3
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
