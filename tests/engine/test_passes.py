"""What is expected of guesses that take a pass each."""

import pytest

from seventy.engine.passes import MAX_PASSES, Counts


def test_what_is_expected_of_guesses_at_places_where_little_was_counted() -> None:
    of_all = Counts(0.6, 4.0)
    assert of_all.shares == [0.6] * MAX_PASSES
    for _ in range(60):
        of_all.add(2, 1)
    # The first is right, the second never; what comes after a right second was not seen.
    assert of_all.shares[0] > 0.95 and of_all.shares[1] < 0.1 and of_all.shares[2] < 0.1
    text = Counts(0.6, 4.0, of_all)
    for _ in range(30):
        text.add(1, 1)
    assert text.chances(8)[:1] == [pytest.approx(1, abs=0.02)] and len(text.chances(8)) == 2
    good = Counts(0.6, 4.0)
    for _ in range(30):
        good.add(1, 1)
    assert len(good.chances(8)) == 8 and good.chances(8)[7] > 0.5
