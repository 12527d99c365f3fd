"""Cards in results/ are read as `seventy cards` reads them, and none stands there twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from seventy.bench.card import Card, read, write
from seventy.errors import SeventyError

RESULTS = Path(__file__).parents[2] / "results"


def checked(folder: Path) -> list[Card]:
    """The cards of a folder. Raises SeventyError for one that cannot be believed or says what another says."""
    found: dict[str, Path] = {}
    cards = []
    for path in sorted(folder.glob("*.json")):
        card = read(path)
        other = found.setdefault(card.text(), path)
        if other != path:
            raise SeventyError(f"{path.name} is the same run as {other.name}")
        cards.append(card)
    return cards


def test_every_card_is_sound_and_new() -> None:
    checked(RESULTS)


def test_a_second_copy_and_an_impossible_one_are_refused(card: Card, tmp_path: Path) -> None:
    write(card, tmp_path / "a.json")
    assert checked(tmp_path) == [card]
    write(card, tmp_path / "b.json")
    with pytest.raises(SeventyError, match=r"b\.json is the same run as a\.json"):
        checked(tmp_path)
    (tmp_path / "b.json").write_text(replace(card, repeats=card.repeats + 1).text())
    with pytest.raises(SeventyError, match="no result card"):
        checked(tmp_path)
