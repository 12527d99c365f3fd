"""Durations as Ollama's clients write them."""

import math
import re

from seventy.language import t

_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def keep_alive_seconds(value: str | float) -> float:
    """Convert a duration as Ollama's clients write it to seconds: 300, "5m", "1h30m"; negative means for ever.

    Raises ValueError if it is not a duration.
    """
    text = str(value).strip()
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        seconds = float(text)
    elif re.fullmatch(r"-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+", text):
        parts = re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", text)
        seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
        seconds = -seconds if text.startswith("-") else seconds
    else:
        raise ValueError(t(
            "keep_alive is a number of seconds or a duration such as 5m or 1h30m, not {text!r}",
            text=text[:40],
        ))
    return math.inf if seconds < 0 else seconds
