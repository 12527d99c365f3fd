import random

import numpy as np
import pytest

from seventy import SeventyError
from seventy.cache.pages import Pages
from seventy.cache.prefix import PrefixCache, Sequence
from seventy.cache.spec import Paged, Recurrent
from seventy.cache.states import EMPTY, States
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


def make_recurrent(n_pages: int, n_states: int) -> PrefixCache:
    """A cache of a layer with pages and two that keep one number of a whole text each."""
    specs = [Recurrent(((1,),)), Paged(1, 16, 16), Recurrent(((1,),))]
    return PrefixCache(Pages(specs, n_pages, "f16"), States(specs, n_states))


def write_state(cache: PrefixCache, sequence: Sequence, tokens: list[int], commit: bool = True) -> None:
    """As a step does; what it reads must be what was written after the tokens before."""
    start = sequence.length
    sequence.reserve(start + len(tokens))
    whole = [*sequence.tokens, *tokens]
    for at in range(start, len(whole)):
        mark = hash(tuple(whole[: at + 1])) & 0xFFFFFFFF
        cache.memory.layer(1).view(np.uint32)[:, sequence.pages[at // PAGE], at % PAGE] = mark
    old, new, _, _ = sequence.states
    states = cache.states.memory.reshape(-1, cache.states.nbytes).view(np.uint32)
    assert new != EMPTY and new != old
    assert states[old, 0] == states[old, 16] == (hash(tuple(sequence.tokens)) & 0xFFFFFFFF if start else 0)
    states[new] = hash(tuple(whole)) & 0xFFFFFFFF
    if commit:
        sequence.commit(tokens)


def check_pages(cache: PrefixCache, sequence: Sequence) -> None:
    for at in range(sequence.length):
        wanted = hash(tuple(sequence.tokens[: at + 1])) & 0xFFFFFFFF
        assert (cache.memory.layer(1).view(np.uint32)[:, sequence.pages[at // PAGE], at % PAGE] == wanted).all()


def read(cache: PrefixCache, sequence: Sequence, tokens: list[int], most: int = 50) -> int:
    """Read a prompt as the scheduler does; return how much of it was known."""
    known = sequence.open(tokens)
    while rest := tokens[sequence.length :]:
        write_state(cache, sequence, rest[: sequence.until_mark(min(most, len(rest)))])
    return known


def test_the_next_text_of_a_conversation_goes_on_from_a_state() -> None:
    cache = make_recurrent(40, 8)
    sequence, prompt, beginning = Sequence(cache, 40 * PAGE), list(range(10 * PAGE + 5)), [7, 7, 7]
    assert read(cache, sequence, prompt + beginning) == 0
    for _ in range(100):
        write_state(cache, sequence, [9])
    whole = sequence.tokens
    sequence.close()
    # What was thought is left out: the last page before the end of the prompt is where both can go on from.
    assert read(cache, sequence, [*prompt, 1, 2, 3]) == 9 * PAGE
    check_pages(cache, sequence)
    sequence.close()
    # Nothing is left out: from the end of the answer.
    assert read(cache, sequence, [*whole, 1, 2, 3]) == len(whole)
    check_pages(cache, sequence)
    sequence.close()
    assert cache.free_pages == 40 and cache.states.free == 8


def test_where_texts_branch_off_a_state_is_remembered() -> None:
    cache, common = make_recurrent(60, 12), list(range(6 * PAGE + 3))
    sequence = Sequence(cache, 40 * PAGE)
    known = [read(cache, sequence, common + [1000 * i + j for j in range(4 * PAGE)]) for i in range(1, 4)]
    assert known == [0, 0, 6 * PAGE]
    other = Sequence(cache, 40 * PAGE)
    # One that is being read leaves a state where another will want it.
    sequence.open(fresh := list(range(5000, 5000 + 9 * PAGE)))
    sequence.mark(3 * PAGE)
    assert sequence.until_mark(200) == 3 * PAGE
    write_state(cache, sequence, fresh[: 3 * PAGE])
    assert read(cache, other, [*fresh[: 5 * PAGE], 1, 2, 3]) == 3 * PAGE


def test_a_step_that_is_not_committed_leaves_the_state() -> None:
    cache = make_recurrent(40, 4)
    sequence = Sequence(cache, 40 * PAGE)
    write_state(cache, sequence, [1, 2, 3])
    before = sequence.states[0]
    for _ in range(3):
        write_state(cache, sequence, [4, 5], commit=False)
    assert sequence.states[0] == before and cache.states.free == 2
    write_state(cache, sequence, [6])
    sequence.close()
    assert cache.states.free == 4 and sequence.open([1, 2, 3, 6, 7]) == 4


def test_the_state_not_used_for_longest_is_forgotten_first() -> None:
    cache = make_recurrent(40, 4)
    sequence, texts = Sequence(cache, 8 * PAGE), [[i] * PAGE for i in range(1, 6)]
    for text in texts[:3]:
        read(cache, sequence, text)
        sequence.close()
    assert sequence.open(texts[0]) == PAGE
    sequence.close()
    # Two of its own, of which one is remembered.
    read(cache, sequence, texts[3], most=10)
    sequence.close()
    assert [sequence.open(text) for text in texts[:4]] == [PAGE, 0, PAGE, PAGE]
    sequence.close()
    held = [Sequence(cache, 8 * PAGE) for _ in range(3)]
    for each in held[:2]:
        write_state(cache, each, [1])
        each.reserve(2)
    assert cache.states.free == 0 and cache.has_room(1, 1) and not cache.has_room(1, 2)
    with pytest.raises(SeventyError, match="all 4 states of the model's recurrent layers are in use"):
        held[2].reserve(1)


def test_a_state_goes_with_its_page() -> None:
    cache = make_recurrent(6, 12)
    sequence = Sequence(cache, 6 * PAGE)
    for first in (1000, 2000):
        read(cache, sequence, list(range(first, first + 70)))
        sequence.close()
    write_state(cache, sequence, list(range(6 * PAGE)))
    assert cache.states.unused == 12 - 1
    sequence.close()
    cache.forget()
    assert cache.states.unused == 12 and sequence.open(list(range(6 * PAGE))) == 0


def test_random_use_with_states_keeps_every_text_whole() -> None:
    cache, rng = make_recurrent(20, 9), random.Random(4)
    sequences = [Sequence(cache, 4 * PAGE) for _ in range(4)]
    texts = [[rng.randrange(2) for _ in range(4 * PAGE)] for _ in range(3)]
    reused = 0
    for _ in range(3000):
        sequence, text = rng.choice(sequences), rng.choice(texts)
        action, n = rng.randrange(5), rng.randrange(4 * PAGE - sequence.length + 1)
        if action == 0:
            reused += sequence.open(text[: rng.randrange(4 * PAGE)])
        elif action == 1:
            sequence.close()
        elif n and sequence.missing_pages(sequence.length + n) <= cache.free_pages:
            follow = text[: sequence.length] == sequence.tokens
            some = text[sequence.length : sequence.length + n] if follow else [4] * n
            write_state(cache, sequence, some[: sequence.until_mark(n)], commit=action != 2)
        check_pages(cache, sequence)
        used = {state for each in sequences for state in each.states} - {EMPTY}
        assert cache.states.free == 9 - len(used)
    for sequence in sequences:
        sequence.close()
    assert cache.free_pages == 20 and cache.states.free == 9 and reused > 5000
