"""A card says what a run found, comes back as it was, and is not believed unseen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seventy.bench import card as cards
from seventy.bench.card import Card, Samples, anonymous
from seventy.errors import SeventyError
from seventy.machine.smbios import Slot, Slots
from seventy.measure.profile import Profile

Changed = Callable[..., Path]


def test_round_trip(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    cards.write(card, path)
    assert cards.read(path) == card


def test_it_says_what_ran(card: Card) -> None:
    labels = [result.label for result in card.results]
    assert labels == ["prefill 32", "2 users", "3 users", "decode at 0", "decode at 40"]
    assert (card.threads, card.repeats, card.model.layers, card.model.architecture) == (2, 3, 2, "llama")
    assert set(card.model.format_bytes) == {"Q4_K"}
    assert card.energy and (card.energy.source, card.energy.watts, card.energy.cny_per_kwh) == ("wall", 50.0, 0.6)
    assert card.peer and (card.peer.name, card.peer.version) == ("llama.cpp", "8cf427ff")
    for result in card.results:
        assert (result.versus is None) == (result.what == "batch")
        assert result.joules_per_token and len(result.joules_per_token.values) == 3
        speed = result.tokens_per_second.median
        assert result.joules_per_token.median == pytest.approx(50 / speed, rel=0.3)


def test_slots_lose_their_names(profile: Profile) -> None:
    slot = Slot("Mr Li's DIMM", "A", 16 << 30, "DDR4", 3200, 2933, 64)
    found = anonymous(replace(profile, slots=Slots((slot,))))
    assert found.slots.slots == (replace(slot, name=""),)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("version",), 2, "version"),
        (("extra",), 1, "unknown keys: extra"),
        (("threads",), "2", "not of type int"),
        (("threads",), 0, "threads"),
        (("date",), "yesterday", "date"),
        (("isa",), "avx9", "avx9"),
        (("kv",), "f8", "f8"),
        (("seventy",), "the best engine", "version"),
        (("load_seconds",), -1.0, "load_seconds"),
        (("model", "experts_used"), 9, "9 of 0 experts"),
        (("model", "token_bytes"), 1 << 40, "of 0 experts"),
        (("results", 0, "experts"), 5.0, "5 of 0 experts"),
        (("peer", "name"), "mine", "peer"),
        (("peer", "version"), "built by me", "peer"),
        (("peer", "isa"), "fast", "fast"),
        (("energy", "source"), "guess", "guess"),
        (("machine", "cpu"), "a CPU; <b>buy</b> it at example.com", "machine.cpu"),
        (("machine", "version"), 9, "profile version"),
        (("machine", "settings", "container"), "x" * 81, "container"),
        (("model", "architecture"), "My Model!", "architecture"),
        (("model", "format_bytes"), {"Q9": 1}, "Q9"),
        (("model", "format_bytes"), {}, "weights"),
        (("model", "whole_layers"), 1, "2 layers of 1"),
        (("results",), [], "results"),
        (("results", 0, "what"), "sleep", "sleep"),
        (("results", 0, "n"), 0, "no task"),
        (("results", 0, "gbs"), float("nan"), "no rate"),
        (("results", 0, "gops"), 1.6e6, "limit"),
        (("results", 3, "tokens_per_second", "median"), 1e9, "repeats"),
        (("results", 3, "tokens_per_second", "values"), [1.0, 1.0], "repeats"),
        (("results", 3, "versus", "ratio"), 0.0, "no rate"),
        (("results", 3, "read_limit_gbs"), {"values": [1.0], "median": 1.0, "spread": 0.0}, "repeats"),
    ],
)
def test_refuses(changed: Changed, place: tuple[str | int, ...], value: object, why: str) -> None:
    with pytest.raises(SeventyError, match=why):
        cards.read(changed(*place, value=value))


def test_share_of_what_memory_gave_beside_each_repeat(card: Card) -> None:
    speeds = Samples.of((8.0, 10.0, 20.0))
    result = replace(card.results[3], tokens_per_second=speeds, gbs=5.0, read_limit_gbs=Samples.of((5.0, 10.0, 10.4)))
    # 4, 5 and 10 GB/s.
    assert result.memory_share(card.machine) == pytest.approx(0.8)
    assert replace(result, read_limit_gbs=None).memory_share(card.machine) == pytest.approx(5e-4)
    assert replace(card, results=(result,)).memory_limit_gbs == card.machine.read_bandwidth_gbs
    fast = replace(result, read_limit_gbs=Samples.of((3e4,) * 3))
    assert replace(card, results=(fast,)).memory_limit_gbs == 3e4


def test_refuses_decode_above_the_memory(card: Card) -> None:
    big = replace(card.model, format_bytes={"Q4_K": 40 * 10**9})
    fast = replace(card.results[3], gbs=1.6 * card.machine.read_bandwidth_gbs)
    assert not list(cards.problems(replace(card, model=big)))
    assert "limit" in next(cards.problems(replace(card, model=big, results=(fast,))))
    seen = replace(fast, read_limit_gbs=Samples.of((2.1 * card.machine.read_bandwidth_gbs,) * card.repeats))
    assert "memory gave" in next(cards.problems(replace(card, model=big, results=(seen,))))
    # What fits in a cache is not bound by it.
    assert card.machine.last_level_cache_bytes == 0 or not list(cards.problems(replace(card, results=(fast,))))


@pytest.mark.parametrize("text", ["", "[]", "{}", "{" * 100000, "[" * 100000, '{"version": 1}'])
def test_refuses_what_is_no_card(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(SeventyError, match="no result card"):
        cards.read(path)
    with pytest.raises(SeventyError, match="cannot read"):
        cards.read(tmp_path / "absent.json")


def test_is_not_written_when_nobody_would_read_it(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    with pytest.raises(SeventyError, match="measure again"):
        cards.write(replace(card, threads=0), path)
    assert not path.exists()


def test_samples() -> None:
    assert Samples.of([3.0, 1.0, 2.0]) == Samples((3.0, 1.0, 2.0), 2.0, 0.25)
