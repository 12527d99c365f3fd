"""Arguments that a model wrote almost as JSON, read as what it meant."""

import ast
import json
import re
from typing import Any

_CLOSERS = {"{": "}", "[": "]"}
_COMMA = re.compile(r""",(\s*[}\]])""")
# Longer ones are read as JSON or not at all: Python's parser is no place for megabytes.
_MAX_LITERAL = 1 << 16


def read_object(text: str) -> dict[str, Any] | None:
    """Parse a text as an object, or return None if it is none.

    Accepts JSON (also with line breaks inside strings), a string that contains such JSON, Python literals, trailing
    commas, and brackets that were left open outside of strings.
    """
    for attempt in (_json, _literal, _without_commas, _closed):
        value = attempt(text)
        if isinstance(value, str) and attempt is _json:
            value = _json(value)
        if isinstance(value, dict):
            return value
    return None


def write(value: Any) -> str:
    """Encode arguments as JSON."""
    return json.dumps(value, ensure_ascii=False)


def _json(text: str) -> Any:
    try:
        # Not strict: control characters may stand in strings.
        return json.loads(text or "{}", strict=False)
    except (ValueError, RecursionError):
        return None


def _literal(text: str) -> Any:
    if len(text) > _MAX_LITERAL:
        return None
    try:
        value = ast.literal_eval(text.strip())
        json.dumps(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return value


def _without_commas(text: str) -> Any:
    return _json(_COMMA.sub(r"\1", text))


def _closed(text: str) -> Any:
    open, quoted, escaped = list[str](), False, False
    for c in text:
        if quoted:
            quoted = escaped or c != '"'
            escaped = c == "\\" and not escaped
        elif c == '"':
            quoted = True
        elif c in _CLOSERS:
            open.append(_CLOSERS[c])
        elif c in "}]" and (not open or open.pop() != c):
            return None
    return None if quoted or not open else _without_commas(text + "".join(reversed(open)))
