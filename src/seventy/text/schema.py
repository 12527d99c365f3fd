"""JSON schemas that grammars cannot follow in every point: what only narrows the values is let go, and named."""

import json
import re
from collections.abc import Mapping
from typing import Any

# What llguidance does not know, and refuses. Each of them only narrows what the rest allows.
_NARROWING = frozenset(
    (
        "uniqueItems", "contains", "minContains", "maxContains", "propertyNames", "unevaluatedProperties",
        "unevaluatedItems", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies",
        "contentEncoding", "contentMediaType", "contentSchema",
    )
)  # fmt: skip
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown")
)
# Keywords whose value is a schema, a list of them, or schemas by name.
_ONE = ("items", "additionalProperties", "additionalItems")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
# Beside properties, what may name others.
_OTHERS = frozenset(
    (
        "additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "if", "$ref",
        "dependentSchemas", "dependencies",
    )
)  # fmt: skip
# Rust's regular expressions have neither of both.
_LOOKS_OR_REFERS = re.compile(r"\(\?(?:=|!|<=|<!)|\\[1-9]")


def relaxed(schema: Mapping[str, Any], place: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return the schema without what grammars cannot enforce, and the paths of what was dropped
    (`properties.a.format`).

    Every value that the schema accepts is accepted by the relaxed schema.
    """
    result, gone = dict[str, Any](), list[str]()

    def part(value: Any, at: str) -> Any:
        if not isinstance(value, Mapping):
            return value
        inner, more = relaxed(value, at)
        gone.extend(more)
        return inner

    for key, value in schema.items():
        at = f"{place}.{key}" if place else key
        if key in _NARROWING or _cannot_be_followed(key, value):
            gone.append(at)
        elif key in _ONE:
            result[key] = part(value, at)
        elif key in _LISTS and isinstance(value, list):
            if key == "oneOf":
                gone.append(at)
            # Several may hold where exactly one is to.
            name = "anyOf" if key == "oneOf" and "anyOf" not in schema else key
            result[name] = [part(one, f"{at}.{i}") for i, one in enumerate(value)]
        elif key in _NAMED and isinstance(value, Mapping):
            result[key] = {name: part(one, f"{at}.{name}") for name, one in value.items()}
        else:
            result[key] = value
    return result, gone


def _cannot_be_followed(key: str, value: Any) -> bool:
    if key == "format":
        return value not in _FORMATS
    return key == "pattern" and isinstance(value, str) and _LOOKS_OR_REFERS.search(value) is not None


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a function's arguments with other properties forbidden, unless it speaks of them.

    A small model that may add properties adds them without end. Schemas with allOf are returned unchanged.
    """
    return dict(schema) if '"allOf"' in json.dumps(schema) else _closed(schema)


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(value := schema.get(key), Mapping):
            result[key] = _closed(value)
    if isinstance(named := schema.get("properties"), Mapping):
        result["properties"] = {key: _closed(one) if isinstance(one, Mapping) else one for key, one in named.items()}
        if not _OTHERS & schema.keys():
            result["additionalProperties"] = False
    return result
