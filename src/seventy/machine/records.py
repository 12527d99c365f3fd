"""Frozen dataclasses from JSON, checked: what a file of a user's machine says is not believed unseen."""

import contextlib
import dataclasses
import os
import tempfile
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from seventy.language import t

T = TypeVar("T")


def from_json(kind: type[T], data: object, where: str = "the record") -> T:
    """Convert `data` from json.loads to a dataclass by its annotations: numbers, texts, optionals, tuples, dicts,
    dataclasses.

    Raises ValueError for a missing or unknown key and for a value of another type.
    """
    result: T = _convert(kind, data, where)
    return result


def _convert(kind: Any, data: Any, where: str) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, data, where)
    if origin is types.UnionType:
        assert parts[1:] == (types.NoneType,), f"{kind} is no optional"
        return None if data is None else _convert(parts[0], data, where)
    if origin is tuple and isinstance(data, list):
        return tuple(_convert(parts[0], value, f"{where}[{i}]") for i, value in enumerate(data))
    if origin is dict and isinstance(data, dict):
        return {name: _convert(parts[1], value, f"{where}.{name}") for name, value in data.items()}
    if kind is float and type(data) in (int, float):
        return float(data)
    if type(data) is not kind:
        raise ValueError(t(
            "{where} is {data!r}, not of type {kind}",
            where=where, data=data, kind=getattr(kind, "__name__", kind),
        ))
    return data


def _dataclass(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(t("{where} is {data!r}, not a table", where=where, data=data))
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    # What has a default came later than the file may be.
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    wrong = (needed - set(data)) | (set(data) - {field.name for field in fields})
    if wrong:
        raise ValueError(t("{where} has missing or unknown keys: {wrong}", where=where, wrong=", ".join(sorted(wrong))))
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def keep(path: Path, text: str) -> None:
    """Write a cache file atomically. Does nothing if it cannot be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
