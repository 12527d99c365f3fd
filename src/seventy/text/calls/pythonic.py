"""Calls written as Python writes them: LFM2's `<|tool_call_start|>[name(key="text", other=1)]<|tool_call_end|>`."""

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from seventy.text.calls.arguments import literal, of_schema, properties, sequence
from seventy.text.calls.base import Tool, parameters
from seventy.text.calls.marked import Call, Marked

_MAX_CHARACTERS = 1 << 16
_WORDS = {"true": True, "false": False, "null": None}


class Lfm2(Marked):
    begin, end = "<|tool_call_start|>", "<|tool_call_end|>"
    markers = (begin, end)

    @staticmethod
    def written_by(template: str) -> bool:
        # The template of LFM2.5 has no mark of its own: it lists the tools in LFM2's words.
        return any(mark in template for mark in ("<|tool_call_start|>", "<|tool_list_start|>", '"List of tools: ['))

    def _read(self, body: str) -> list[Call]:
        if len(body) > _MAX_CHARACTERS:
            raise ValueError
        try:
            parsed = ast.parse(body.strip(), mode="eval").body
            calls = parsed.elts if isinstance(parsed, ast.List) else [parsed]
            return [_call(call) for call in calls]
        except (SyntaxError, TypeError, RecursionError, MemoryError):
            raise ValueError from None

    @classmethod
    def grammar(cls, tools: Sequence[Tool], parallel: bool) -> str:
        call = " | ".join(f"call{at}" for at in range(len(tools)))
        more = f' (", " ({call}))*' if parallel else ""
        lines = [f"start: {literal(cls.begin + '[')} ({call}){more} {literal(']' + cls.end)}"]
        for at, tool in enumerate(tools):
            schema = parameters(tool)
            rules = {}
            for number, (name, one) in enumerate(properties(schema).items()):
                rules[name] = f"argument{at}_{number}"
                lines.append(f"{rules[name]}: {literal(name + '=')} value{at}_{number}")
                lines.append(f"value{at}_{number}: {of_schema(one or {})}")
            arguments = sequence(rules, schema, ", ")
            lines.append(f'call{at}: {literal(tool["function"]["name"] + "(")} {arguments} ")"')
        return "\n".join(lines) + "\n"

    @classmethod
    def written(cls, calls: Sequence[Mapping[str, Any]]) -> str:
        texts = []
        for call in calls:
            given = call["arguments"]
            inner = given if isinstance(given, str) else ", ".join(f"{name}={one!r}" for name, one in given.items())
            texts.append(f"{call['name']}({inner})")
        return f"{cls.begin}[{', '.join(texts)}]{cls.end}"


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        raise ValueError
    arguments = {str(word.arg): ast.literal_eval(_Words().visit(word.value)) for word in node.keywords}
    json.dumps(arguments)
    return ast.unparse(node.func), arguments


class _Words(ast.NodeTransformer):
    """JSON's words among Python's."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_WORDS[node.id]) if node.id in _WORDS else node
