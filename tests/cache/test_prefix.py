import random

import numpy as np
import pytest

from seventy import SeventyError
from seventy.cache.pages import Pages
from seventy.cache.prefix import PrefixCache, Sequence
from seventy.cache.spec import Paged
from seventy.kernels.attention import PAGE


def make(n_pages: int) -> PrefixCache:
    """A cache of two layers that differ in heads and widths."""
    return PrefixCache(Pages([Paged(1, 16, 16), Paged(2, 32, 16)], n_pages, "f16"))


@pytest.fixture
def cache() -> PrefixCache:
    return make(8)


def write(cache: PrefixCache, sequence: Sequence, tokens: list[int]) -> None:
    """As a step does: the page of each position is marked with what was read up to there."""
    start = sequence.length
    sequence.reserve(start + len(tokens))
    whole = [*sequence.tokens, *tokens]
    for at in range(start, len(whole)):
        for layer in range(2):
            mark = hash(tuple(whole[: at + 1])) & 0xFFFFFFFF
            cache.memory.layer(layer).view(np.uint32)[:, sequence.pages[at // PAGE], at % PAGE] = mark
    sequence.commit(tokens)


def check(cache: PrefixCache, sequence: Sequence) -> None:
    for at in range(sequence.length):
        wanted = hash(tuple(sequence.tokens[: at + 1])) & 0xFFFFFFFF
        for layer in range(2):
            marks = cache.memory.layer(layer).view(np.uint32)[:, sequence.pages[at // PAGE], at % PAGE]
            assert (marks == wanted).all()


def test_a_prefix_is_read_once(cache: PrefixCache) -> None:
    first, second = Sequence(cache, 200), Sequence(cache, 200)
    write(cache, first, list(range(70)))
    assert second.open(list(range(100))) == 2 * PAGE
    write(cache, second, [7] * 10)
    check(cache, first)
    check(cache, second)
    assert cache.free_pages == 8 - 3 - 1
    # The end of the first text is in no page of the tree while it goes on, and is afterwards.
    first.close()
    third = Sequence(cache, 200)
    assert third.open([*range(70), 5]) == 70
    check(cache, third)
    second.close()
    third.close()
    assert cache.free_pages == 8


def test_the_beginning_of_a_page_is_copied(cache: PrefixCache) -> None:
    sequence = Sequence(cache, 200)
    write(cache, sequence, list(range(50)))
    sequence.close()
    assert sequence.open([*range(40), 99]) == 40
    write(cache, sequence, [99])
    check(cache, sequence)
    other = Sequence(cache, 200)
    # What was there before is still there for another.
    assert other.open(list(range(50))) == 50
    check(cache, other)


def test_two_that_write_the_same_share_it(cache: PrefixCache) -> None:
    a, b = Sequence(cache, 200), Sequence(cache, 200)
    for sequence in (a, b):
        write(cache, sequence, list(range(64)))
    assert cache.free_pages == 8 - 2
    check(cache, b)


def test_what_is_not_committed_leaves_nothing(cache: PrefixCache) -> None:
    a, b = Sequence(cache, 200), Sequence(cache, 200)
    write(cache, a, list(range(40)))
    a.reserve(8 * PAGE - 100)
    for layer in range(2):
        cache.memory.layer(layer)[:, a.pages[2:]] = 0xFF
    a.close()
    assert cache.free_pages == 8
    assert b.open(list(range(100))) == 40
    check(cache, b)


def test_the_longest_unused_goes_first(cache: PrefixCache) -> None:
    sequence = Sequence(cache, 8 * PAGE)
    for first in (1000, 2000, 3000):
        write(cache, sequence, list(range(first, first + 64)))
        sequence.close()
    write(cache, sequence, list(range(4 * PAGE)))
    sequence.close()
    assert sequence.open(list(range(1000, 1064))) < 64
    assert sequence.open(list(range(3000, 3064))) == 64
    sequence.close()
    cache.forget()
    assert (cache.free_pages, cache.idle_pages) == (8, 0)
    assert sequence.open(list(range(3000, 3064))) == 0


def test_a_full_cache_says_so(cache: PrefixCache) -> None:
    sequence = Sequence(cache, 1000)
    with pytest.raises(SeventyError, match="all 256 positions are in use"):
        sequence.reserve(257)


def test_random_use_keeps_every_text_whole() -> None:
    cache, rng = make(20), random.Random(3)
    sequences = [Sequence(cache, 4 * PAGE) for _ in range(5)]
    texts = [[rng.randrange(3) for _ in range(4 * PAGE)] for _ in range(3)]
    for _ in range(3000):
        sequence, text = rng.choice(sequences), rng.choice(texts)
        action = rng.randrange(4)
        n = rng.randrange(4 * PAGE - sequence.length + 1)
        if action == 0:
            sequence.open(text[: rng.randrange(4 * PAGE)])
        elif action == 1:
            sequence.close()
        elif action == 2:
            sequence.reserve(sequence.length + n)
        else:
            follow = text[: sequence.length] == sequence.tokens
            write(cache, sequence, text[sequence.length : sequence.length + n] if follow else [4] * n)
        check(cache, sequence)
        held = {page for s in sequences for page in s.pages.tolist()}
        assert cache.free_pages == 20 - len(held)
    for sequence in sequences:
        sequence.close()
    assert cache.free_pages == 20
