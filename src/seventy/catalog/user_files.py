"""A user's own prices and parts, from TOML files that extend and override the catalogue.

    [[price]]                          [[cpu]]                            [[platform]]
    category = "ram"                   name = "Xeon Gold 9999"            name = "My server"
    mem_type = "DDR4"                  cores = 40 ...                     sockets = 2 ...

The keys are the columns of catalog/data/*.csv; an unknown key is refused with its line.
"""

import datetime
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from seventy.catalog.cpus import Cpu
from seventy.catalog.platforms import Platform
from seventy.catalog.prices import PriceRow
from seventy.catalog.rows import make
from seventy.errors import SeventyError
from seventy.language import t

Row = TypeVar("Row")


def _read(path: Path, tables: set[str]) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise SeventyError("{path} cannot be read: {reason}.", path=path, reason=error.strerror) from None
    except tomllib.TOMLDecodeError as error:
        raise SeventyError("{path} is no TOML: {error}.", path=path, error=error) from None
    for name, value in data.items():
        if name not in tables or not isinstance(value, list):
            line = _line(text, name, 0, name)
            known = ", ".join(f"[[{table}]]" for table in sorted(tables))
            raise SeventyError(
                "{path} line {line}: unknown table {name!r}; known are {known}.",
                path=path, line=line, name=name, known=known,
            )
    return text, data


def _line(text: str, table: str, index: int, key: str) -> int:
    """The line of a key in the index-th [[table]], or of the table itself."""
    seen, inside, at = -1, False, 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]?\]", line)
        if header:
            inside = header.group(1) == table
            seen += inside
            if inside and seen == index:
                at = number
        here = (inside and seen == index) or (not header and seen < 0)
        if here and re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line):
            return number
    return at


def _rows(path: Path, text: str, table: str, entries: list[Any], kind: type[Row], defaults: dict[str, str],
          copied: dict[str, str]) -> list[Row]:  # fmt: skip
    """The entries as rows; `copied` names fields that take another field's value where they are not given."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    found = []
    for index, entry in enumerate(entries):
        for key in entry:
            if key not in known:
                where = t("{path} line {text}", path=path, text=_line(text, table, index, key))
                raise SeventyError(
                    "{where}: unknown key {key!r}; known are {known}.",
                    where=where, key=key, known=", ".join(sorted(known)),
                )
        cells = {**defaults, **{key: str(value) for key, value in entry.items()}}
        for key, origin in copied.items():
            cells.setdefault(key, cells.get(origin, ""))
        for key in known - cells.keys():
            cells[key] = ""
        found.append(make(kind, cells, t("{path} line {text}", path=path, text=_line(text, table, index, ""))))
    return found


def own_prices(path: Path, region: str, currency: str) -> list[PriceRow]:
    """Read the [[price]] tables of a file. Region, currency and date default to the book's and to this month."""
    text, data = _read(path, {"price"})
    today = datetime.date.today()
    defaults = {
        "region": region, "currency": currency, "date": f"{today:%Y-%m}", "source": f"own file {path.name}",
        "unit": "piece", "confidence": "own",
    }  # fmt: skip
    return _rows(path, text, "price", data.get("price", []), PriceRow, defaults, {"item": "category"})


def own_parts(path: Path) -> tuple[list[Cpu], list[Platform]]:
    """Read the [[cpu]] and [[platform]] tables of a file."""
    text, data = _read(path, {"cpu", "platform"})
    source = {"source": f"own file {path.name}", "date": f"{datetime.date.today():%Y-%m}"}
    cpu_defaults = {**source, "vendor": "own", "year": "0", "max_sockets": "1"}
    copied = {"big_cores": "cores", "threads": "cores"}
    cpus = _rows(path, text, "cpu", data.get("cpu", []), Cpu, cpu_defaults, copied)
    return cpus, _rows(path, text, "platform", data.get("platform", []), Platform, source, {})
