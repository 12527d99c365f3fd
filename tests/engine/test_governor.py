"""The governor's arithmetic: guesses pay, or are not there."""

from collections.abc import Callable

import pytest

from seventy.engine.governor import MAX_DRAFT, Governor, Offer


def run(
    governor: Governor, seconds: Callable[[int], float], right: Callable[[], bool], chance: float, passes: int,
    texts: int = 1,
) -> tuple[float, int, list[int]]:  # fmt: skip
    """Write texts whose guesses are right as `right` says and hoped to be by `chance`: seconds, tokens, guesses."""
    total, tokens, drafted = 0.0, 0, []
    for _ in range(passes):
        offers = [Offer([chance ** (i + 1) for i in range(MAX_DRAFT)])] * texts
        numbers = governor.share(offers, 64 - texts)
        written = 0
        for n in numbers:
            written += 1
            for _ in range(n):
                if not right():
                    break
                written += 1
        rows = texts + sum(numbers)
        governor.record(texts, rows, written, seconds(rows))
        total, tokens = total + seconds(rows), tokens + written
        drafted.append(sum(numbers))
    return total, tokens, drafted


def test_rows_that_cost_nothing_are_filled_and_those_that_cost_a_pass_are_not() -> None:
    _, tokens, drafted = run(Governor(), lambda rows: 1 + 0.01 * rows, lambda: True, 0.95, 100)
    assert drafted[:3] == [0, 0, 0] and max(drafted) == MAX_DRAFT and tokens > 1200
    # A row that takes longer than a step: tried now and then, within what is allowed.
    total, tokens, drafted = run(Governor(), lambda rows: 1.0 + 1.5 * (rows - 1), lambda: True, 0.95, 400)
    assert 0 < sum(drafted) < 40 and total <= 1.02 * tokens


@pytest.mark.parametrize("slope", [0.02, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("chance", [0.3, 0.8, 0.99])
def test_guesses_that_are_always_wrong_cost_two_hundredths_at_most(slope: float, chance: float) -> None:
    def seconds(rows: int) -> float:
        return 1 + slope * (rows - 1)

    total, tokens, drafted = run(Governor(), seconds, lambda: False, chance, 400)
    assert total <= 1.02 * tokens * seconds(1), (total / tokens, drafted)


def test_when_others_fill_the_step_guesses_give_way() -> None:
    # Eight rows cost as one, every further one as much as all of these.
    def seconds(rows: int) -> float:
        return max(1.0, rows - 7.0)

    _, _, drafted = run(Governor(), seconds, lambda: True, 0.9, 200)
    assert drafted[-1] == 7
    _, _, drafted = run(Governor(), seconds, lambda: True, 0.9, 200, texts=8)
    assert not any(drafted[-50:])


def test_a_machine_that_slows_down_changes_nothing() -> None:
    governor, busy = Governor(), [1.0]

    def seconds(rows: int) -> float:
        return busy[0] * (1 + 0.05 * rows)

    run(governor, seconds, lambda: True, 0.95, 100)
    busy[0] = 3.0
    _, _, drafted = run(governor, seconds, lambda: True, 0.95, 200)
    assert sum(n > 5 for n in drafted) > 180
    assert governor.cost(1) == pytest.approx(seconds(1), rel=0.2)


@pytest.mark.parametrize("rows", [0.02, 0.3])
@pytest.mark.parametrize("passes", [0.01, 0.1, 2.0])
def test_a_draft_model_is_asked_as_long_as_it_pays(rows: float, passes: float) -> None:
    """Guesses right by 0.8 each: what is gained is no less than with the best fixed number of them, but for trials."""

    def run(share: Callable[[Governor, Offer], int]) -> float:
        governor, total, written = Governor(), 0.0, 0.0
        for _ in range(300):
            n = share(governor, Offer([0.8 ** (i + 1) for i in range(8)], passes=True))
            right = sum(0.8 ** (i + 1) for i in range(n))
            seconds, drafting = 1 + rows * n, passes * n
            governor.record(1, 1 + n, 1 + right, seconds, drafting)  # type: ignore[arg-type]
            total, written = total + seconds + drafting, written + 1 + right
        return written / total

    governed = run(lambda governor, offer: governor.share([offer], 60, passes)[0])
    fixed = max(run(lambda governor, offer, n=n: n) for n in range(9))  # type: ignore[misc]
    assert governed >= 0.95 * fixed


def test_reading_with_a_draft_model_is_paid_for() -> None:
    governor = Governor()
    governor.begin()
    governor.record_prompt(100.0)
    assert 1 <= governor.for_reading <= 2
    governor.pay_reading(1.0)
    left = governor.for_reading
    governor.pay_reading(left + 1)
    assert governor.for_reading == 0 and governor.account < 0
    governor.begin()
    assert governor.account == 0


def model_text(governor: Governor, right: bool, tokens: int, reading: float) -> float:
    """Write a text that a draft model has to read first, whose guesses are all right or all wrong; its seconds."""
    row, each = 0.2, 0.1
    governor.begin()
    total, written, read = 0.0, 0, False
    while written < tokens:
        governor.keep_for_reading(0.0 if read else 1.0)
        chance = 0.9 if read or governor.for_reading >= reading else 0.0
        offer = Offer([chance ** (i + 1) for i in range(8)], passes=True) if chance else Offer()
        n = governor.share([offer], 60, each)[0]
        drafting = each * n
        if n and not read:
            governor.pay_reading(reading)
            read, total = True, total + reading
        governor.record(1, 1 + n, 1 + n * right, 1 + row * n, drafting, passes=n > 0)
        total, written = total + 1 + row * n + drafting, written + 1 + n * right
    return total


@pytest.mark.parametrize("reading", [0.5, 2.0, 10.0])
def test_a_draft_model_that_is_always_wrong_costs_two_hundredths(reading: float) -> None:
    governor = Governor()
    for _ in range(5):
        assert model_text(governor, False, 200, reading) <= 1.02 * 200


def test_what_a_draft_model_saved_pays_for_reading_the_next_text() -> None:
    governor = Governor()
    first = model_text(governor, True, 200, 2.0)
    then = [model_text(governor, True, 200, 2.0) for _ in range(3)]
    # It may read from the first step on, when it was right before.
    assert max(then) < first - 10 and max(then) < 100
    # Once more than that it cannot cost: four steps and the share of every text.
    wrong = [model_text(governor, False, 200, 2.0) for _ in range(4)]
    assert wrong[0] <= 204 + 0.02 * 200 and sum(wrong) <= 800 * 1.02 + 4


def test_what_lookups_saved_pays_for_no_reading() -> None:
    governor = Governor()
    for _ in range(50):
        governor.record(1, 1, 1, 1.0)
        governor.record(1, 9, 9, 1.5)
    governor.begin()
    assert governor.for_reading == 0
