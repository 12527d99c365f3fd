"""What grammars of several styles of calls share: arguments one after the other, texts that end at a mark."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def literal(text: str) -> str:
    """A text as a grammar writes it."""
    return json.dumps(text, ensure_ascii=False)


def until(mark: str) -> str:
    """The body of a rule, to be `lazy`, of any text up to and with the mark."""
    escaped = "".join(c if c.isalnum() or c in "_ <>'｜▁" else {"\n": r"\n"}.get(c, f"\\{c}") for c in mark)
    return f"/(?s:.*){escaped}/"


def sequence(required: Sequence[str], optional: Sequence[str], separator: str = "") -> str:
    """Rules in this order, with a separator between: those that must stand, then any of those that may."""
    between = f"{literal(separator)} " if separator else ""
    must = f" {between}".join(required)
    if must or not separator:
        return " ".join([must, *(f"({between}{rule})?" for rule in optional)]).strip()
    chains = [" ".join([first, *(f"({between}{rule})?" for rule in optional[at + 1 :])]) for at, first in enumerate(optional)]
    return f"({' | '.join(chains)})?" if chains else ""


def is_text(schema: Mapping[str, Any]) -> bool:
    """Whether a value is a text whatever it looks like."""
    kind = schema.get("type")
    return kind == "string" or (kind is None and _all_texts(schema.get("enum")))


def _all_texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def value(text: str, schema: Mapping[str, Any]) -> Any:
    """What a text stands for that has no quotes of its own: JSON where the schema allows it, else itself."""
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
    """The schema of each argument."""
    found = schema.get("properties")
    return {k: v if isinstance(v, Mapping) else {} for k, v in found.items()} if isinstance(found, Mapping) else {}


def split(schema: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of the arguments that must be given, and of those that may."""
    required = schema.get("required") or ()
    known = properties(schema)
    return [name for name in known if name in required], [name for name in known if name not in required]
