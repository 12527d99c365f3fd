import random

import numpy as np
import pytest

from seventy import SeventyError
from seventy.cache.pages import Pages
from seventy.cache.prefix import PrefixCache, Sequence
from seventy.cache.spec import Paged
from seventy.kernels.attention import PAGE


def make(n_pages: int, window: int | None = None, n_slots: int | None = None) -> PrefixCache:
    """A cache of two layers that differ in heads and widths; the second may have a window."""
    return PrefixCache(Pages([Paged(1, 16, 16), Paged(2, 32, 16, window)], n_pages, "f16", n_slots))


@pytest.fixture
def cache() -> PrefixCache:
    return make(8)


def write(cache: PrefixCache, sequence: Sequence, tokens: list[int]) -> None:
    """As a step does: the page of each position is marked with what was read up to there."""
    start = sequence.length
    sequence.reserve(start + len(tokens))
    whole = [*sequence.tokens, *tokens]
    for at in range(start, len(whole)):
        for layer, table in enumerate((sequence.pages, sequence.slots)):
            mark = hash(tuple(whole[: at + 1])) & 0xFFFFFFFF
            cache.memory.layer(layer).view(np.uint32)[:, table[at // PAGE], at % PAGE] = mark
    sequence.commit(tokens)


def check(cache: PrefixCache, sequence: Sequence) -> None:
    """Every layer has what the next position sees."""
    for at in range(sequence.length):
        wanted = hash(tuple(sequence.tokens[: at + 1])) & 0xFFFFFFFF
        for layer, table in enumerate((sequence.pages, sequence.slots)):
            window = cache.memory.specs[layer].window or sequence.length + 1
            if at > sequence.length - window:
                marks = cache.memory.layer(layer).view(np.uint32)[:, table[at // PAGE], at % PAGE]
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


def test_pages_behind_a_window_are_given_back() -> None:
    # The second layer has room for 6 pages: one text of any length needs no more than 4.
    cache = make(40, window=40, n_slots=6)
    sequence = Sequence(cache, 40 * PAGE)
    text = list(range(35 * PAGE))
    for at in range(0, len(text), PAGE):
        write(cache, sequence, text[at : at + PAGE])
        check(cache, sequence)
    assert (sequence.slots >= 0).sum() == 6 and cache.slots.free == 6 - 2
    sequence.close()
    # All pages are there, but the windows only near the end: elsewhere nothing can go on.
    assert sequence.open(text[: 20 * PAGE]) == 0
    sequence.close()
    assert sequence.open(text) == len(text)
    check(cache, sequence)
    sequence.close()
    assert cache.free_pages == 6 and cache.slots.free == 6


def test_the_next_text_of_a_conversation_goes_on_where_the_prompt_ended() -> None:
    cache = make(40, window=40, n_slots=16)
    prompt, beginning, thoughts = list(range(10 * PAGE + 5)), [7, 7, 7], [9] * 20 * PAGE
    sequence = Sequence(cache, 40 * PAGE)
    assert sequence.open(prompt + beginning) == 0
    write(cache, sequence, prompt + beginning)
    for at in range(0, len(thoughts), 5):
        write(cache, sequence, thoughts[at : at + 5])
    sequence.close()
    assert sequence.open([*prompt, 1, 2, 3]) == len(prompt)
    check(cache, sequence)
    write(cache, sequence, [1, 2, 3])
    check(cache, sequence)


def test_who_reads_again_what_lost_its_room_gives_it_back() -> None:
    cache = make(40, window=40, n_slots=8)
    first, second = Sequence(cache, 40 * PAGE), Sequence(cache, 40 * PAGE)
    text = list(range(12 * PAGE))
    for at in range(0, len(text), PAGE):
        write(cache, first, text[at : at + PAGE])
    # The first pages are in the tree and have no slots: they are read anew, and shared all the same.
    assert second.open(text[: 4 * PAGE]) == 0
    for at in range(0, 4 * PAGE, PAGE):
        write(cache, second, text[at : at + PAGE])
        check(cache, second)
    assert second.pages.tolist() == first.pages[:4].tolist()
    check(cache, first)


def test_random_use_with_windows_keeps_what_is_seen() -> None:
    window, n_slots = 40, 24
    cache, rng = make(30, window, n_slots), random.Random(5)
    sequences = [Sequence(cache, 9 * PAGE) for _ in range(4)]
    texts = [[rng.randrange(2) for _ in range(9 * PAGE)] for _ in range(2)]
    reused = 0
    for i in range(2000):
        sequence, text = rng.choice(sequences), rng.choice(texts)
        action, n = rng.randrange(6), rng.randrange(min(70, 9 * PAGE - sequence.length + 1))
        if action == 0:
            reused += sequence.open(text[: rng.randrange(9 * PAGE)])
        elif action == 1 or sequence.missing_pages(sequence.length + n) > cache.free_pages:
            sequence.close()
        elif action == 2:
            sequence.reserve(sequence.length + n)
        else:
            follow = text[: sequence.length] == sequence.tokens
            write(cache, sequence, text[sequence.length : sequence.length + n] if follow else [4] * n)
        for each in sequences if i % 20 == 0 else [sequence]:
            check(cache, each)
        slots = [slot for slot in cache.slots.of_page.tolist() if slot >= 0]
        assert len(slots) == len(set(slots)) <= n_slots
    for sequence in sequences:
        sequence.close()
    assert cache.free_pages == n_slots and reused > 5000
    cache.forget()
    assert (cache.slots.of_page < 0).all()


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
