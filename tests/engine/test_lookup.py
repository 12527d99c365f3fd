"""Guesses by lookup: what they are, and how likely they say they are."""

import random

import pytest

from seventy.engine.governor import MAX_DRAFT
from seventy.engine.lookup import Lookup, Memory


def test_lookup_finds_what_followed_before_and_goes_round() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3]
    lookup = Lookup(tokens)
    assert lookup.propose(3) == [4, 5, 6]
    # Beyond the end it goes on with itself.
    assert lookup.propose(10) == [4, 5, 6, 7, 9, 1, 2, 3, 4, 5]
    first = lookup.chances(1)
    tokens += [4, 5, 6]
    lookup.observe()
    assert lookup.propose(1) == [7]
    # The longer it was right, the surer.
    assert lookup.chances(1) > first
    tokens.append(8)
    lookup.observe()
    assert lookup.chances(5) == []


def test_lookup_counts_what_it_would_have_guessed_though_nobody_asked() -> None:
    rng = random.Random(1)
    # Three tokens that are always there, and never what followed them before.
    tokens = [token for i in range(40) for token in (1, 2, 3, 10 + i)]
    lookup = Lookup([*tokens[:8], 1, 2, 3])
    assert lookup.chances(3)
    text = tokens[:8]
    lookup = Lookup(text)
    for token in tokens[8:]:
        text.append(token)
        lookup.observe()
    text += [1, 2, 3]
    lookup.observe()
    assert lookup.chances(3) == []
    copied = [rng.randrange(1000) for _ in range(50)]
    text = copied * 3
    lookup = Lookup(text)
    for token in copied * 2:
        text.append(token)
        lookup.observe()
    assert len(lookup.chances(MAX_DRAFT)) == MAX_DRAFT


def test_an_index_made_at_once_is_the_one_made_token_by_token() -> None:
    rng = random.Random(0)
    tokens = [rng.randrange(3) for _ in range(200)]
    grown = tokens[:1]
    by_token = Lookup(grown)
    for token in tokens[1:]:
        grown.append(token)
        by_token.observe()
    assert by_token._after == Lookup(tokens)._after | {(tokens[0],): 1, (tokens[0], tokens[1]): 2}


@pytest.mark.parametrize("n", range(6))
def test_short_prompts_have_no_guesses(n: int) -> None:
    assert Lookup(list(range(n))).chances(4) == []


def test_other_texts_of_the_same_user_are_looked_up_and_no_others() -> None:
    memory = Memory()
    memory.add("ann", [1, 2, 3, 4, 5, 6, 7])
    memory.add("bob", [1, 2, 3, 9, 9, 9, 9])
    text = [8, 1]
    lookup = Lookup(text, memory, "ann")
    for token in (2, 3):
        text.append(token)
        lookup.observe()
    assert lookup.propose(len(lookup.chances(9))) == [4]
    # As it is right it is believed; its text ends where it ends.
    for token in (4, 5):
        text.append(token)
        lookup.observe()
    assert lookup.propose(len(lookup.chances(9))) in ([6], [6, 7])
    # What stands in the text itself comes first.
    text += [1, 2, 3, 5, 0, 1, 2, 3]
    lookup.observe()
    assert lookup.propose(2) == [5, 0]
    assert Lookup(list(text), memory, "eve").chances(4) == Lookup(list(text)).chances(4)


def test_a_memory_has_an_end_and_a_turn_replaces_the_one_before() -> None:
    memory = Memory(room=100)
    conversation = list(range(40))
    memory.add("ann", conversation[:20])
    memory.add("ann", conversation)
    assert memory.find("ann", (0, 1, 2)) == (conversation, 3) and memory._size == 40
    for i in range(5):
        memory.add("bob", [1000 * i + j for j in range(30)])
    assert memory._size <= 100 and memory.find("ann", (0, 1, 2)) is None
    assert memory.find("bob", (4000, 4001, 4002)) and not memory.find("bob", (0, 1, 2))
    memory.add("bob", list(range(5000, 5500)))
    assert memory._size == 100 and memory.find("bob", (5400, 5401, 5402))
