"""Gemma 4's calls: `<|tool_call>call:NAME{key:<|"|>text<|"|>,number:1,list:[true]}<tool_call|>`."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seventy.text.calls.arguments import literal, of_schema, properties, sequence, until
from seventy.text.calls.base import Tool, parameters
from seventy.text.calls.marked import Call, Marked
from seventy.text.calls.repair import write

_QUOTE = '<|"|>'
_HEAD = re.compile(r"\s*call:([^\s{]+)\s*(?=\{)")
_KEY = re.compile(r"([{,]\s*)([\w.$-]+)(\s*:)")


class Gemma4(Marked):
    begin, end = "<|tool_call>", "<tool_call|>"
    markers = (begin, end, _QUOTE)

    @staticmethod
    def written_by(template: str) -> bool:
        return "<|tool_call>" in template and _QUOTE in template.replace("\\", "")

    def _read(self, body: str) -> list[Call]:
        head = _HEAD.match(body)
        if head is None:
            raise ValueError
        pieces = body[head.end() :].split(_QUOTE)
        # Every second piece is a text. Keys are found in the others alone.
        pieces = [write(piece) if at % 2 else _KEY.sub(r'\1"\2"\3', piece) for at, piece in enumerate(pieces)]
        try:
            arguments = json.loads("".join(pieces), strict=False)
        except RecursionError:
            raise ValueError from None
        if not isinstance(arguments, dict):
            raise ValueError
        return [(head[1], arguments)]

    @classmethod
    def grammar(cls, tools: Sequence[Tool], parallel: bool) -> str:
        call = " | ".join(f"call{at}" for at in range(len(tools)))
        lines = [f"start: ({call}){f' ({call})*' if parallel else ''}", f"rest[lazy]: {until(_QUOTE)}"]
        lines.append(f"text: {literal(_QUOTE)} rest")
        lines.append('any: text | /-?[0-9]+(\\.[0-9]+)?/ | "true" | "false" | "null" | any_list | any_object')
        lines.append('any_list: "[" (any ("," any)*)? "]"')
        lines.append('any_object: "{" (KEY ":" any ("," KEY ":" any)*)? "}"')
        lines.append("KEY: /[A-Za-z_][A-Za-z0-9_.-]*/")
        for at, tool in enumerate(tools):
            rule = _rule(parameters(tool), f"call{at}_v", lines)
            lines.append(
                f"call{at}: {literal(f'{cls.begin}call:' + tool['function']['name'])} {rule} {literal(cls.end)}"
            )
        return "\n".join(lines) + "\n"

    @classmethod
    def written(cls, calls: Sequence[Mapping[str, Any]]) -> str:
        return "".join(f"{cls.begin}call:{call['name']}{_value(call['arguments'])}{cls.end}" for call in calls)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f"{_QUOTE}{value}{_QUOTE}"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_value, value)) + "]"
    return write(value)


def _rule(schema: Mapping[str, Any], name: str, lines: list[str]) -> str:
    """The rule of a value of this schema; what has no simple kind may be any value."""
    kind, choices = schema.get("type"), schema.get("enum")
    if isinstance(choices, list) and choices:
        lines.append(f"{name}: {' | '.join(literal(_value(choice)) for choice in choices)}")
    elif kind == "string":
        return "text"
    elif kind in ("integer", "number", "boolean", "null"):
        lines.append(f"{name}: {of_schema(schema)}")
    elif kind == "array":
        items = schema.get("items")
        one = _rule(items, f"{name}_i", lines) if isinstance(items, Mapping) else "any"
        lines.append(f'{name}: "[" ({one} ("," {one})*)? "]"')
    elif kind == "object" and properties(schema):
        known = properties(schema)
        rules = {}
        for at, (key, one_schema) in enumerate(known.items()):
            rules[key] = f"{name}_{at}"
            inner = _rule(one_schema, f"{name}_{at}_v", lines)
            lines.append(f"{name}_{at}: {literal(key + ':')} {inner}")
        inside = sequence(rules, schema, ",")
        lines.append(f'{name}: "{{" {inside} "}}"')
    else:
        return "any_object" if kind == "object" else "any"
    return name
