"""Reads the catalogue's text tables: one CSV row becomes one checked, frozen dataclass.

A blank cell is an unknown and becomes None (or an empty string where the field is text); it never becomes zero.
"""

import csv
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from importlib.resources import files
from typing import Any, TypeVar

from seventy.errors import SeventyError

Row = TypeVar("Row")


_KNOWN_READERS: dict[type, dict[str, tuple[Callable[[str], Any], bool]]] = {}


def _readers(row_type: type) -> dict[str, tuple[Callable[[str], Any], bool]]:
    """For each field of a row type: how a non-empty cell is read, and whether a blank is allowed."""
    if row_type in _KNOWN_READERS:
        return _KNOWN_READERS[row_type]
    hints = typing.get_type_hints(row_type)
    readers: dict[str, tuple[Callable[[str], Any], bool]] = {}
    for field in fields(row_type):
        hint = hints[field.name]
        optional = False
        if isinstance(hint, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
            optional = True
        readers[field.name] = (hint, optional or hint is str or _has_default(field))
    _KNOWN_READERS[row_type] = readers
    return readers


def _has_default(field: "Field[Any]") -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def make(row_type: type[Row], cells: Mapping[str, str], where: str) -> Row:
    """Make a row from its cells and check it; `where` (file and line) begins every error message."""
    readers = _readers(row_type)
    unknown = [name for name in cells if name not in readers]
    if unknown:
        raise SeventyError(
            "{where}: unknown column {unknown!r}; known are {readers}.",
            where=where, unknown=unknown[0], readers=", ".join(readers),
        )
    values: dict[str, Any] = {}
    for name, (read, blank_allowed) in readers.items():
        cell = cells.get(name, "").strip()
        if cell:
            try:
                values[name] = read(cell)
            except ValueError:
                raise SeventyError(
                    "{where}: {name} is {cell!r}, which is no {kind}.",
                    where=where, name=name, cell=cell, kind=read.__name__,
                ) from None
        elif not blank_allowed:
            raise SeventyError("{where}: {name} is blank, but every row needs it.", where=where, name=name)
        elif read is not str and name not in cells:
            continue
        else:
            values[name] = "" if read is str else None
    try:
        return row_type(**values)
    except ValueError as error:
        raise SeventyError("{where}: {error}.", where=where, error=error) from None


def table(name: str) -> list[tuple[str, dict[str, str]]]:
    """Read the rows of catalog/data/NAME as (where, cells)."""
    text = (files("seventy.catalog") / "data" / name).read_text(encoding="utf-8")
    reader = csv.DictReader(text.splitlines())
    return [(f"catalog/data/{name} line {reader.line_num}", row) for row in reader]


def load(name: str, row_type: type[Row]) -> tuple[Row, ...]:
    """Read and check the rows of catalog/data/NAME."""
    return tuple(make(row_type, cells, where) for where, cells in table(name))
