"""Cards side by side, and as rows that the catalogue reads."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from seventy.bench import card as cards
from seventy.bench import compare
from seventy.bench.card import Card, Samples
from seventy.catalog.measurements import Measurement
from seventy.catalog.rows import make
from seventy.machine.smbios import Slot, Slots


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seventy", "cards", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_side_by_side(card: Card, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    speed = card.results[3].tokens_per_second
    doubled = replace(card.results[3], tokens_per_second=Samples.of([2 * value for value in speed.values]))
    cards.write(card, first)
    cards.write(replace(card, results=(doubled,), model=replace(card.model, context=99)), second)
    done = run(first, second)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "decode at 0" in line)
    assert f"{speed.median:.2f}" in line and "2.00 x" in line
    cards.write(replace(card, results=(doubled,), model=replace(card.model, layers=1)), second)
    assert " x)" not in run(first, second).stdout
    assert "prefill 32" in done.stdout and card.machine.cpu[:20] in done.stdout


def test_a_card_becomes_a_row_that_the_catalogue_reads(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "C001.json"
    slot = Slot("", "A", 16 << 30, "DDR4", 2400, 2133, 64)
    slots = Slots((slot, replace(slot, channel="B"), replace(slot, channel="C", nbytes=0)))
    bare = replace(card.machine, slots=slots, settings=replace(card.machine.settings, hypervisor=""))
    cards.write(replace(card, machine=bare), path)
    done = run(path, "--catalogue", "--group", "somebody", "--source", "https://example.org/1")
    assert done.returncode == 0, done.stderr
    (cells,) = csv.DictReader([",".join(Measurement.__dataclass_fields__), *done.stdout.splitlines()])
    row = make(Measurement, cells, "the card")
    assert (row.id, row.group, row.layout, row.channels, row.mts) == ("C001", "somebody", "stated", 2, 2133)
    assert row.decode_tok_s == pytest.approx(card.results[3].tokens_per_second.median, abs=1e-3)
    assert row.prefill_tok_s == pytest.approx(card.results[0].tokens_per_second.median, abs=1e-2)
    assert (row.context, row.layers, row.quant, row.exclude) == (0, 2, "Q4_K", "")


def test_a_row_is_of_the_layers_that_ran(card: Card) -> None:
    shape = replace(card.model, whole_layers=10, synthetic=True)
    result = replace(card.results[3], whole_model=Samples.of((1.0, 2.0, 3.0)), read_limit_gbs=Samples.of((7.0,) * 3))
    row = compare.catalogue_row(replace(card, model=shape, results=(result,)), "C2", "x", "y")
    assert row.decode_tok_s == pytest.approx(result.tokens_per_second.median, abs=1e-3)
    assert row.layers == 2 and row.prefill_tok_s is None
    assert row.file_gib == pytest.approx(card.weight_bytes / 2**30, abs=0.01)
    assert "random weights" in row.notes and "2 of 10 layers" in row.notes
    assert row.layout == "measured" and row.bandwidth_gbs == 7


def test_says_what_is_missing(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    cards.write(replace(card, results=card.results[:1]), path)
    done = run(path, "--catalogue")
    assert done.returncode == 1 and "--group and --source" in done.stderr
    done = run(path, "--catalogue", "--group", "x", "--source", "y")
    assert done.returncode == 1 and "nothing was decoded" in done.stderr
