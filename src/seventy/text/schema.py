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
    """The schema without what grammars cannot follow, and the places of what was let go (`properties.a.format`).

    Every value of the schema is one of the relaxed schema, too.
    """
    result, gone = dict[str, Any](), list[str]()
    for key, value in schema.items():
        at = f"{place}.{key}" if place else key
        if (
            key in _NARROWING
            or (key == "format" and value not in _FORMATS)
            or (key == "pattern" and isinstance(value, str) and _LOOKS_OR_REFERS.search(value))
        ):
            gone.append(at)
        elif key in _ONE and isinstance(value, Mapping):
            result[key], more = relaxed(value, at)
            gone += more
        elif key in _LISTS and isinstance(value, list):
            parts = [
                relaxed(one, f"{at}.{i}") if isinstance(one, Mapping) else (one, []) for i, one in enumerate(value)
            ]
            # Several may hold where exactly one is to.
            result["anyOf" if key == "oneOf" and "anyOf" not in schema else key] = [part for part, _ in parts]
            gone += [*([at] if key == "oneOf" else []), *(one for _, more in parts for one in more)]
        elif key in _NAMED and isinstance(value, Mapping):
            result[key] = dict[str, Any]()
            for name, one in value.items():
                part, more = relaxed(one, f"{at}.{name}") if isinstance(one, Mapping) else (one, [])
                result[key][name] = part
                gone += more
        else:
            result[key] = value
    return result, gone



def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a function's arguments without properties that it does not name, where it does not speak of others.

    A small model that may add properties without end does. Schemas that are put together (allOf) stay as they are.
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
