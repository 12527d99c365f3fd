"""Cards in results/ are read as `seventy cards` reads them, and none stands there twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from seventy.bench.card import Card, write
from seventy.bench.results import checked, files, impossible, markdown
from seventy.errors import SeventyError

ROOT = Path(__file__).parents[2]


def test_every_card_is_sound_and_new() -> None:
    checked([ROOT / "results"])


def test_the_docs_have_the_table_of_all_cards() -> None:
    paths = files([ROOT / "results"])
    published = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("<!-- cards -->\n")[1]
    assert published.rstrip("\n") == markdown(checked(paths), [path.stem for path in paths])


def believable(card: Card) -> Card:
    """The card of a machine whose memory no table knows."""
    return replace(card, machine=replace(card.machine, cpu="a machine of the tests"))


def test_a_second_copy_and_an_impossible_one_are_refused(card: Card, tmp_path: Path) -> None:
    card = believable(card)
    write(card, tmp_path / "a.json")
    assert checked([tmp_path]) == [card]
    # Another date does not make it another run.
    write(replace(card, date="2026-01-01"), tmp_path / "b.json")
    with pytest.raises(SeventyError, match=r"b\.json is the same run as .*a\.json"):
        checked([tmp_path])
    (tmp_path / "b.json").write_text(replace(card, repeats=card.repeats + 1).text())
    with pytest.raises(SeventyError, match="no result card"):
        checked([tmp_path])


def test_no_memory_gives_more_than_its_channels_carry(card: Card, tmp_path: Path) -> None:
    assert impossible(believable(card)) is None
    # The profile of the tests says 10,000 GB/s; one socket of this CPU has four channels of DDR4-2400.
    old = replace(card, machine=replace(card.machine, cpu="Intel Xeon E5-2680 v4", sockets=1))
    assert "10000.0 GB/s, and Intel Xeon E5-2680 v4 carry 76.8" in (impossible(old) or "")
    write(old, tmp_path / "old.json")
    with pytest.raises(SeventyError, match=r"old\.json .*believed.*76\.8"):
        checked([tmp_path])
