"""A card in a paragraph that fits a chat message."""

from dataclasses import replace
from pathlib import Path

import pytest

from seventy.bench.card import Card
from seventy.bench.share import MOST_CHARACTERS, decoded, paragraph, picture


@pytest.mark.parametrize("lang, unit", [("en", "tok/s"), ("zh", "token/秒")])
def test_it_says_machine_price_speed_and_share(card: Card, lang: str, unit: str) -> None:
    said = paragraph(card, "llama-3.3-70b-Q4_K_M", 1.23, "2052 CNY", lang)
    result = decoded(card)
    assert result is not None and len(said) <= MOST_CHARACTERS
    assert card.machine.cpu[:8] in said and "2052 CNY" in said and unit in said and "llama-3.3-70b-Q4_K_M"[:8] in said
    assert "1.23" in said or result.whole_model
    assert f"{round(100 * result.memory_share(card.machine))}" in said


def test_long_names_give_way(card: Card) -> None:
    said = paragraph(replace(card, machine=replace(card.machine, cpu="x" * 80)), "m" * 300, 0.85, "1 USD", "en")
    assert len(said) <= MOST_CHARACTERS and said.endswith(card.seventy)


def test_a_card_without_a_decode_cannot_be_shared(card: Card) -> None:
    prompts = tuple(result for result in card.results if result.what != "decode")
    with pytest.raises(ValueError, match="no decode"):
        paragraph(replace(card, results=prompts), "m", 0.85)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_long_prices_give_way(card: Card, lang: str) -> None:
    long = replace(card, machine=replace(card.machine, cpu="x" * 80))
    said = paragraph(long, "m" * 300, 0.85, "about 2052 CNY for board, processor and four sticks " * 4, lang)
    assert len(said) <= MOST_CHARACTERS and "2052 CNY" in said


# Of the libraries that matplotlib uses.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_picture_fills_a_phone(card: Card, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra [pictures] is not installed")
    picture(card, "llama-3.3-70b", tmp_path / "card.png", "2052 CNY")
    data = (tmp_path / "card.png").read_bytes()
    size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and size == (1080, 1350)
