"""docs/models.md and its Chinese twin say what the program does."""

import re
from pathlib import Path

import pytest

from seventy.hub.names import resolve
from seventy.plan.choice import choose
from tests.plan.test_choice import MACHINES, QUANTS, machine, offered

DOCS = [Path(__file__).parents[2] / "docs" / name for name in ("models.md", "models.zh-CN.md")]


def blocks(path: Path) -> list[str]:
    return re.findall(r"```\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def commands(path: Path) -> list[str]:
    return [line.partition("  #")[0].strip() for block in blocks(path) for line in block.splitlines()]


def table(path: Path) -> dict[str, list[str]]:
    """The quants by model, for 16 to 256 GB."""
    rows = re.findall(r"^\| ([\w.-]+) \| (.*) \|$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in rows if re.match(r"(qwen|llama-3)", name)}


def test_both_languages_have_the_same_commands_and_table() -> None:
    assert commands(DOCS[0]) == commands(DOCS[1])
    assert table(DOCS[0]) == table(DOCS[1]) and len(table(DOCS[0])) == 8


def test_the_names_in_it_mean_something() -> None:
    names = re.findall(r"seventy (?:pull|run|predict) (\S+)", "\n".join(commands(DOCS[0])))
    assert len(names) >= 8
    for name in names:
        resolve(name)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_the_table_of_quants_is_what_would_be_taken(path: Path) -> None:
    for name, cells in table(path).items():
        for gb, cell in zip(MACHINES, cells, strict=True):
            taken = choose(*offered(name, machine(gb), QUANTS)).chosen
            assert cell == (taken.quant if taken else "-"), f"{name} on {gb} GB"
