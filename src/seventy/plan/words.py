"""What plan and predict say, in English and Chinese: messages/ has a message a key; `say` fills in its `{names}`."""

import os
import tomllib
from collections.abc import Mapping
from importlib.resources import files

LANGUAGES = ("en", "zh")


def language(wanted: str | None) -> str:
    """Return the language to use: the requested one, else the locale's, else English."""
    text = (wanted or os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or "").lower()
    return "zh" if text.startswith("zh") else "en"


def say(key: str, lang: str, values: Mapping[str, object] | None = None) -> str:
    """Format the message of this key; numbers are rounded to their significant digits."""
    text = MESSAGES[key][LANGUAGES.index(lang)]
    shown = {name: _shown(value, lang) for name, value in (values or {}).items()}
    return text.format(**shown)


def _shown(value: object, lang: str) -> object:
    """A value as it stands in a message; a mapping has a text for each language."""
    if isinstance(value, Mapping):
        return value[lang]
    return number(value) if isinstance(value, float) else value


def number(value: float) -> str:
    """Three figures, no exponent: 0.52, 4.31, 28.7, 154, 2052."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _messages() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for file in (files("seventy.plan") / "messages").iterdir():
        for key, texts in tomllib.loads(file.read_text(encoding="utf-8")).items():
            assert key not in found, f"{key} stands twice in plan/messages"
            found[key] = (texts["en"], texts["zh"])
    return found


MESSAGES = _messages()
