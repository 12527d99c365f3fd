"""A model's numbers out of its GGUF's metadata, each checked before anything is built on it."""

import math
from collections.abc import Mapping
from typing import Any

from seventy.errors import SeventyError
from seventy.language import t

_MOST_LAYERS = 1024


def _is_list(value: Any) -> bool:
    """Whether this is one number for each layer."""
    return not isinstance(value, str) and hasattr(value, "__len__") and 0 < len(value) <= _MOST_LAYERS


class Metadata:
    """The keys of one architecture, asked for without their prefix."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self._metadata, self._prefix = metadata, architecture + "."

    def _get(self, key: str, default: Any) -> Any:
        value = self._metadata.get(self._prefix + key)
        if value is None:
            value = default
        if value is None:
            raise SeventyError(
                "the model's metadata lacks {prefix}{key}; get the file again",
                prefix=self._prefix, key=key,
            )
        return value

    def _wrong(self, key: str, value: Any, wanted: str) -> SeventyError:
        return SeventyError(
            "the model's {prefix}{key} is {value!r}, not {wanted}; get the file again",
            prefix=self._prefix, key=key, value=value, wanted=wanted,
        )

    def raw(self, key: str) -> Any:
        """Return the value of a key as the file has it, or None."""
        return self._metadata.get(self._prefix + key)

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return an integer, or the one of all layers if the file lists the same for each."""
        value = self._get(key, default)
        if _is_list(value):
            value, *others = value
            if any(other != value for other in others):
                raise SeventyError(
                    "the model's {prefix}{key} is not the same in all layers, which this engine does not do in this "
                    "architecture; take another model",
                    prefix=self._prefix, key=key,
                )
        return self._checked(key, value, low, high)

    def integers(self, key: str, low: int, high: int, layers: int, default: int | None = None) -> tuple[int, ...]:
        """Return an integer per layer; values for further blocks in the file are ignored."""
        value = self._get(key, default)
        numbers = list(value) if _is_list(value) else [value] * layers
        if len(numbers) < layers:
            raise self._wrong(key, numbers, t("a number for each of its {layers} layers", layers=layers))
        return tuple(self._checked(key, number, low, high) for number in numbers[:layers])

    def _checked(self, key: str, value: Any, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(key, value, t("a number from {low} to {high}", low=low, high=high))
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise self._wrong(key, value, t("a positive number"))
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, t("true or false"))
        return value

    def flags(self, key: str, layers: int) -> tuple[bool, ...]:
        """Return true or false per layer; values for further blocks in the file are ignored."""
        value = self._get(key, None)
        flags = list(value) if hasattr(value, "__len__") and not isinstance(value, str) else []
        if len(flags) < layers or not all(isinstance(each, bool) for each in flags):
            shown = f"{flags or value!r:.60}"
            raise SeventyError(
                "the model's {prefix}{key} is {shown}, not true or false for each of its {layers} layers; get the "
                "file again",
                prefix=self._prefix, key=key, shown=shown, layers=layers,
            )
        return tuple(flags[:layers])

    def text(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, t("a text"))
        return value

    def context(self) -> int:
        """Return the longest context the model was made for."""
        return self.integer("context_length", 1, 1 << 24)

    def vocabulary(self) -> int:
        """Return the number of tokens in the vocabulary."""
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        if tokens is None:
            return self.integer("vocab_size", 1, 1 << 24)
        if not hasattr(tokens, "__len__"):
            raise SeventyError(
                "the model's tokenizer.ggml.tokens is {tokens!r}, not a list; get the file again",
                tokens=tokens,
            )
        return len(tokens)
