"""Calls written as a name, a mark and a JSON object: DeepSeek, Kimi, Mistral."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from seventy.text.calls.arguments import literal, named_objects, of_schema
from seventy.text.calls.base import Tool, parameters
from seventy.text.calls.marked import Call, Marked
from seventy.text.calls.repair import read_object, write


class _NamedJson(Marked):
    """`head` is written before a call's object, `tail` after it; `first` and `last` stand around all calls."""

    # The name at the beginning of a call's body, before its object, and what may stand after that.
    named: ClassVar[re.Pattern[str]]
    rest: ClassVar[str] = ""
    head: ClassVar[str]
    tail: ClassVar[str]
    first: ClassVar[str] = ""
    last: ClassVar[str] = ""
    between: ClassVar[str] = ""

    def _read(self, body: str) -> list[Call]:
        head = self.named.match(body)
        arguments = read_object(body[head.end() :].strip().removesuffix(self.rest)) if head else None
        if head is None or arguments is None:
            raise ValueError
        return [(head[1], arguments)]

    @classmethod
    def grammar(cls, tools: Sequence[Tool], parallel: bool) -> str:
        call = " | ".join(f"call{at}" for at in range(len(tools)))
        between = f"{literal(cls.between)} " if cls.between else ""
        more = f" ({between}({call}))*" if parallel else ""
        first, last = (f" {literal(mark)} " if mark else " " for mark in (cls.first, cls.last))
        lines = [f"start:{first}({call}){more}{last}"]
        for at, tool in enumerate(tools):
            pieces = (piece.format(name=tool["function"]["name"]) for piece in cls.head.split("{number}"))
            head = " /[0-9]+/ ".join(map(literal, pieces))
            tail = f" {literal(cls.tail)}" if cls.tail else ""
            lines.append(f"call{at}: {head} arguments{at}{tail}")
            lines.append(f"arguments{at}: {of_schema(parameters(tool))}")
        return "\n".join(lines) + "\n"

    @classmethod
    def written(cls, calls: Sequence[Mapping[str, Any]]) -> str:
        texts = [
            cls.head.format(name=call["name"], number=at) + _text(call["arguments"]) + cls.tail
            for at, call in enumerate(calls)
        ]
        return cls.first + cls.between.join(texts) + cls.last


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else write(arguments)


class DeepSeek(_NamedJson):
    """DeepSeek V3.1: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜> ...`

    V3 and R1 wrote the word `function` before the name, and a fence around the object; that is read, too.
    """

    wrappers = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
    begin, end = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
    markers = (*wrappers, begin, end, "<｜tool▁sep｜>")
    named = re.compile(r"(?:function<｜tool▁sep｜>)?\s*([^\s<]+)\s*(?:<｜tool▁sep｜>)?\s*(?:```json)?")
    rest = "```"
    head, tail = "<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>", end
    first, last = wrappers

    @staticmethod
    def written_by(template: str) -> bool:
        return "<｜tool▁call▁begin｜>" in template


class DeepSeekFenced(DeepSeek):
    """DeepSeek V3 and R1."""

    head, tail = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n", "\n```<｜tool▁call▁end｜>"
    between = "\n"

    @staticmethod
    def written_by(template: str) -> bool:
        return "<｜tool▁call▁begin｜>" in template and "```json" in template


class Kimi(_NamedJson):
    """Kimi K2: `<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{...}<|tool_call_end|>` ..."""

    wrappers = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
    begin, end = "<|tool_call_begin|>", "<|tool_call_end|>"
    markers = (*wrappers, begin, end, "<|tool_call_argument_begin|>")
    named = re.compile(r"\s*(?:functions\.)?([^\s:<]+)(?::\d+)?\s*<\|tool_call_argument_begin\|>")
    head, tail = "<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>", end
    first, last = wrappers

    @staticmethod
    def written_by(template: str) -> bool:
        return "<|tool_call_argument_begin|>" in template


class Mistral(_NamedJson):
    """Mistral since late 2024: `[TOOL_CALLS]NAME[ARGS]{...}[TOOL_CALLS]NAME[ARGS]{...}`; a call has no mark at its end.

    Earlier ones wrote `[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}, ...]`; both are read of either.
    """

    begin = "[TOOL_CALLS]"
    markers = (begin, "[ARGS]", "[CALL_ID]")
    named = re.compile(r"\s*([^\s\[{]+)(?:\[CALL_ID\][^\[]*)?(?:\[ARGS\])?\s*(?=\{)")
    head, tail = "[TOOL_CALLS]{name}[ARGS]", ""

    @staticmethod
    def written_by(template: str) -> bool:
        return "[TOOL_CALLS]" in template

    def _extent(self, held: str) -> tuple[int, int] | None:
        start = len(self.begin)
        body = held[start:]
        value = start + len(body) - len(body.lstrip())
        if not held[value:].startswith("["):
            head = self.named.match(body)
            if head is None:
                # No more than a name may stand before the object.
                return (start, start) if "{" in body or "\n" in body.strip() else None
            value = start + head.end()
        end = _end_of_value(held, value)
        return None if end is None else (end, end)

    def _read(self, body: str) -> list[Call]:
        if not body.lstrip().startswith("["):
            return super()._read(body)
        calls = []
        for one in json.loads(body, strict=False):
            name, given = one.get("name"), one.get("arguments", one.get("parameters", {}))
            arguments = read_object(given) if isinstance(given, str) else given
            if not isinstance(name, str) or not isinstance(arguments, dict):
                raise ValueError
            calls.append((name, arguments))
        return calls


class MistralList(Mistral):
    """Mistral until late 2024: one list of all calls."""

    @staticmethod
    def written_by(template: str) -> bool:
        return "[TOOL_CALLS]" in template and "[ARGS]" not in template

    @classmethod
    def grammar(cls, tools: Sequence[Tool], parallel: bool) -> str:
        more = ' (", " object)*' if parallel else ""
        return f'start: "[TOOL_CALLS][" object{more} "]"\n{named_objects(tools, "arguments")}'

    @classmethod
    def written(cls, calls: Sequence[Mapping[str, Any]]) -> str:
        return "[TOOL_CALLS]" + write([{"name": call["name"], "arguments": call["arguments"]} for call in calls])


def _end_of_value(text: str, start: int) -> int | None:
    """Where the JSON list or object that begins there ends; None where it goes on."""
    depth, quoted, escaped = 0, False, False
    for at in range(start, len(text)):
        c = text[at]
        if quoted:
            quoted = escaped or c != '"'
            escaped = c == "\\" and not escaped
        elif c == '"':
            quoted = True
        elif c in "{[":
            depth += 1
        elif c in "}]":
            depth -= 1
            if not depth:
                return at + 1
    return None
