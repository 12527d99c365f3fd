"""The account of memory: plain numbers in, plain numbers out."""

import pytest

from seventy.runtime.memory import (
    LEAST_CONTEXT,
    MOST_CONTEXT,
    Footprint,
    cache_positions,
    choose_context,
    fitting_positions,
    fitting_states,
    reserve,
    room,
    row_columns,
    step_rows,
    visible,
    whole_pages,
)

GIB = 1 << 30
# Llama 3.3 70B at Q4_K_M, and a small model whose whole context is small.
LARGE = Footprint(42_512_531_456, 327_680, row_columns(8192, 8192, 1024, 28672), 128_256, 131_072)
SMALL = Footprint(98_000_000, 23_040, row_columns(576, 576, 192, 1536), 49_152, 8192)


def test_every_part_is_counted() -> None:
    need = LARGE.need(4096)
    assert (need.weights, need.cache, need.states) == (42_512_531_456, 4096 * 327_680, 0)
    assert need.rows == 4 * (256 * (2 * 8192 + 3 * 8192 + 2 * 1024 + 3 * 28672) + 64 * 128_256)
    assert need.process == 200_000_000 + 1_200 * 128_256
    assert need.total == need.weights + need.cache + need.rows + need.process


def test_a_mixture_takes_rows_for_the_experts_a_token_uses() -> None:
    dense = row_columns(2048, 4096, 512, 6144)
    assert row_columns(2048, 4096, 512, 6144, 128, 8, 768) == dense + 128 + 8 * (3 * 768 + 2048)


def test_a_step_of_a_mixture_has_more_rows_where_memory_has_room_for_them() -> None:
    mixture = Footprint(10**9, 1000, 50_000, 1000, 8192, max_rows=512)
    least = mixture.need(4096, 2).total
    assert mixture.need(4096, 2, rows=512).total - least == 4 * 256 * 50_000
    for more, rows in ((0, 256), (4 * 256 * 50_000 - 1, 256), (4 * 256 * 50_000, 512), (10**10, 512)):
        assert step_rows(mixture, least + more, 4096, 2, 0) == rows
    assert step_rows(SMALL, 10**10, 4096, 2, 0) == 256


def test_recurrent_layers_take_states_for_each_text() -> None:
    recurrent = Footprint(10**9, 1000, 100, 1000, 8192, state_bytes=5_000_000)
    # Two that a step reads and writes, two to go on from; and two more for all together.
    assert [recurrent.need(0, sequences).states for sequences in (1, 4)] == [6 * 5_000_000, 18 * 5_000_000]
    assert recurrent.seen_bytes(7) == 7 * 1000 + 2 * 5_000_000
    assert fitting_positions(recurrent, 2 * 10**9, 64) < fitting_positions(recurrent, 2 * 10**9, 1)


def test_states_are_fewer_where_memory_is_short() -> None:
    recurrent = Footprint(10**9, 1000, 100, 1000, 8192, state_bytes=60_000_000)
    fixed = recurrent.need(0, states=0).total
    assert [fitting_states(recurrent, fixed + more, 4) for more in (0, 10**9, 10**10)] == [3, 8, 18]
    for more in (3 * 10**8, 10**9, 10**10):
        states, most = (fitting_states(recurrent, fixed + more, 4), fitting_positions(recurrent, fixed + more, 4))
        assert recurrent.need(most, 4, states=states).total <= fixed + more
    assert fitting_states(SMALL, 10**10, 4) == 0


def test_layers_with_windows_take_room_for_the_windows_of_the_texts() -> None:
    windowed = Footprint(10**9, 1000, 100, 1000, 1 << 17, window=128, window_bytes=3000)
    assert windowed.need(1024).cache == 1024 * 4000
    assert [windowed.seen_bytes(n) for n in (100, 1000)] == [100 * 4000, 1000 * 1000 + 128 * 3000]
    longer, longest = windowed.need(1 << 16).cache, windowed.need(1 << 17).cache
    assert longest - longer == (1 << 16) * 1000
    assert windowed.need(1 << 17, sequences=5).cache > longest
    for room_bytes in (1_250_000_000, 1_300_000_000, 1_500_000_000):
        for sequences in (1, 8):
            most = fitting_positions(windowed, room_bytes, sequences)
            assert windowed.need(most, sequences).total <= room_bytes < windowed.need(most + 32, sequences).total


def test_rows_and_outputs_are_those_asked_for() -> None:
    assert SMALL.need(0, rows=512).rows - SMALL.need(0, rows=256).rows == 4 * 256 * SMALL.columns
    assert SMALL.need(0, outputs=65).rows - SMALL.need(0, outputs=64).rows == 4 * SMALL.vocabulary


def test_the_cache_is_counted_in_whole_pages() -> None:
    assert [whole_pages(n) for n in (0, 1, 32, 33)] == [0, 32, 32, 64]
    assert SMALL.need(1).cache == SMALL.need(32).cache == 32 * 23_040


def test_the_system_keeps_its_part() -> None:
    total = 64 * GIB
    assert reserve(total) == 10**9 + total // 100
    assert room(total) == total - reserve(total)
    # A machine of one GB still runs a small model.
    assert reserve(GIB) == GIB // 4 and SMALL.need(1024).total < room(GIB)


def test_what_others_use_is_taken_from_the_reserve_first() -> None:
    total = 64 * GIB
    kept = reserve(total)
    assert room(total, total) == room(total, total - kept // 2) == total - kept
    assert room(total, 20 * GIB) == 20 * GIB - kept // 4
    assert room(total, 0) == 0


def test_modules_hold_more_than_their_name_and_show_less_than_they_hold() -> None:
    # This project's desk: a virtual machine of 24 GB, and what its /proc/meminfo says.
    assert visible(24 * GIB) == pytest.approx(25_276_510_208, rel=0.002)


@pytest.mark.parametrize(("gb", "fits"), [(32, False), (40, False), (48, True), (64, True)])
def test_which_modules_hold_a_70b(gb: int, fits: bool) -> None:
    assert (LARGE.need(4096).total <= room(visible(gb * GIB))) == fits


def test_a_wanted_context_is_taken_as_far_as_the_model_goes() -> None:
    assert choose_context(LARGE, 0, 100_000) == 100_000
    assert choose_context(SMALL, 0, 100_000) == 8192


@pytest.mark.parametrize(
    ("room_bytes", "context"), [(200 * GIB, MOST_CONTEXT), (54 * 10**9, MOST_CONTEXT), (45 * 10**9, 5984)]
)
def test_without_one_it_is_what_memory_allows(room_bytes: int, context: int) -> None:
    taken = choose_context(LARGE, room_bytes)
    assert taken == context and taken % 32 == 0
    assert LARGE.need(taken).total <= room_bytes
    if taken < MOST_CONTEXT:
        assert LARGE.need(taken + 32).total > room_bytes


def test_without_one_it_is_never_more_than_the_models_own() -> None:
    odd = Footprint(10**6, 1000, 100, 1000, 2001)
    assert choose_context(odd, 10**9) == 2001
    assert choose_context(SMALL, 10**12) == 8192


def test_below_the_least_context_it_does_not_shrink() -> None:
    # What is then reserved does not fit, and reserving says so.
    for room_bytes in (0, LARGE.need(LEAST_CONTEXT - 32).total):
        assert choose_context(LARGE, room_bytes) == LEAST_CONTEXT
        assert LARGE.need(LEAST_CONTEXT).total > room_bytes
    tiny = Footprint(10**6, 1000, 100, 1000, 100)
    assert choose_context(tiny, 0) == 100


def test_texts_share_a_cache_of_one_to_all_of_them() -> None:
    room_of = LARGE.need(20_000, 4).total
    for context in (4096, 8192, 32768):
        positions = cache_positions(LARGE, room_of, context, 4)
        assert context <= positions <= 4 * context
    assert cache_positions(LARGE, room_of, 4096, 4) == 4 * 4096
    assert cache_positions(LARGE, room_of, 8192, 4) == 20_000
    assert cache_positions(LARGE, room_of, 32768, 4) == 32768
    assert cache_positions(SMALL, 10**12, 100, 3) == 3 * 128
