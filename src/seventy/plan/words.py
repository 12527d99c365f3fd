"""What plan and predict say: messages/ has the English by key, locale/ the Chinese; `say` fills in the `{names}`."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files

from seventy.language import Message, said, t


def say(key: str, lang: str, values: Mapping[str, object] | None = None) -> str:
    """Return the message of this key; numbers are rounded to the figures worth reading."""
    shown = {name: _shown(value, lang) for name, value in (values or {}).items()}
    return Message(MESSAGES[key]).filled(**shown).into(lang)


def _shown(value: object, lang: str) -> object:
    """A value as it stands in a message; a mapping has a text for each language."""
    if isinstance(value, Mapping):
        return value[lang]
    if value == "CNY":
        return unit(value, lang)
    return number(value) if isinstance(value, float) else value


def unit(currency: str, lang: str) -> str:
    """A currency as it stands behind a sum."""
    return said(t("CNY"), lang) if currency == "CNY" else currency


def number(value: float) -> str:
    """Format a number with three figures and no exponent: 0.52, 4.31, 28.7, 154, 2052."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _messages() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in (files("seventy.plan") / "messages").iterdir():
        for key, text in tomllib.loads(file.read_text(encoding="utf-8")).items():
            assert key not in found, f"{key} stands twice in plan/messages"
            found[key] = text
    return found


MESSAGES = _messages()
