"""What grammars of several styles of calls share: arguments one after the other, texts that end at a mark."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from seventy.text.calls.base import Tool, parameters

# What may stand between the parts of JSON that a grammar makes.
WHITESPACE = r"[ \n]{0,2}"


def literal(text: str) -> str:
    """Quote a text for a grammar."""
    return json.dumps(text, ensure_ascii=False)


def of_schema(schema: Mapping[str, Any]) -> str:
    """Return the body of a grammar rule for JSON that follows the schema.

    White space is limited as in answers with a schema: where any amount is allowed, some models write nothing else.
    """
    return f"%json {json.dumps({**schema, 'x-guidance': {'whitespace_pattern': WHITESPACE}}, ensure_ascii=False)}"


def until(mark: str) -> str:
    """Return the body of a `lazy` grammar rule for any text up to and including the mark."""
    escaped = "".join(c if c.isalnum() or c in "_ <>'｜▁" else {"\n": r"\n"}.get(c, f"\\{c}") for c in mark)
    return f"/(?s:.*){escaped}/"


def sequence(rules: Mapping[str, str], schema: Mapping[str, Any], separator: str = "") -> str:
    """Return a rule for arguments in order with a separator between them: the required ones, then any optional ones."""
    required = schema.get("required") or ()
    must = [rule for name, rule in rules.items() if name in required]
    may = [rule for name, rule in rules.items() if name not in required]
    between = f"{literal(separator)} " if separator else ""

    def then(optional: Sequence[str]) -> list[str]:
        return [f"({between}{rule})?" for rule in optional]

    if must or not separator:
        return " ".join([f" {between}".join(must), *then(may)]).strip()
    chains = [" ".join([first, *then(may[at + 1 :])]) for at, first in enumerate(may)]
    return f"({' | '.join(chains)})?" if chains else ""


def named_objects(tools: Sequence[Tool], key: str) -> str:
    """Return the rule `object`: a JSON object with the name of one of these tools, and its arguments under `key`."""
    lines = [f"object: {' | '.join(f'object{at}' for at in range(len(tools)))}"]
    for at, tool in enumerate(tools):
        head = f'{{"name": {json.dumps(tool["function"]["name"])}, "{key}": '
        lines.append(f'object{at}: {literal(head)} arguments{at} "}}"')
        lines.append(f"arguments{at}: {of_schema(parameters(tool))}")
    return "\n".join(lines) + "\n"


def is_text(schema: Mapping[str, Any]) -> bool:
    """Return whether the schema makes every value a string."""
    kind = schema.get("type")
    return kind == "string" or (kind is None and _all_texts(schema.get("enum")))


def _all_texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def value(text: str, schema: Mapping[str, Any]) -> Any:
    """Return the value of an unquoted text: parsed as JSON if the schema allows that, else the text itself."""
    if is_text(schema):
        return text
    stripped = text.strip()
    if stripped in ("True", "False", "None"):
        stripped = {"True": "true", "False": "false", "None": "null"}[stripped]
    try:
        return json.loads(stripped, strict=False)
    except (ValueError, RecursionError):
        return text


def properties(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the schema of each argument, including the definitions it may refer to."""
    found = schema.get("properties")
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    if not isinstance(found, Mapping):
        return {}
    return {name: {**definitions, **one} if isinstance(one, Mapping) else {} for name, one in found.items()}
