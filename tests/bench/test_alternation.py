"""Engines take turns, warm-ups do not count, and a figure is what its samples say."""

import pytest

from seventy.bench.engine import PeerLost, Timing
from seventy.bench.measure import Figure, Ratio, Task, measure, spread


class Scripted:
    """An engine whose every call takes a second more than the one before."""

    def __init__(self, name: str, log: list[str], does: frozenset[str] = frozenset({"prefill", "decode", "batch"})):
        self.name, self.does, self._log, self._calls = name, does, log, 0

    def _time(self) -> Timing:
        self._log.append(self.name)
        self._calls += 1
        return Timing(float(self._calls), 10.0 * self._calls)

    def prefill(self, tokens: int) -> Timing:
        return self._time()

    def decode(self, tokens: int, depth: int) -> Timing:
        return self._time()

    def batch(self, rows: int, depth: int, passes: int) -> Timing:
        return self._time()

    def close(self) -> None: ...


def test_alternates_after_one_warm_up() -> None:
    log: list[str] = []
    seen: list[tuple[str, int, int]] = []
    engines = [Scripted("a", log), Scripted("b", log)]
    (figures,) = measure(engines, [Task("batch", 4, 16, 3)], 2, lambda *now: seen.append(now))
    assert log == ["a", "b"] * 3
    assert figures["a"].samples == (12 / 2, 12 / 3)
    assert figures["a"].joules == (20 / 12, 30 / 12)
    assert seen[-1] == ("4 users", 3, 3)


class Dying(Scripted):
    """A peer that dies at its third call."""

    def _time(self) -> Timing:
        if self._calls == 2:
            raise PeerLost("died")
        return super()._time()


def test_who_dies_is_left_out_and_our_figures_stay() -> None:
    log: list[str] = []
    lost: list[PeerLost] = []
    tasks = [Task("prefill", 8), Task("decode", 4), Task("batch", 2)]
    first, second, third = measure([Scripted("a", log), Dying("b", log)], tasks, 1, lost=lost.append)
    assert set(first) == {"a", "b"} and set(second) == set(third) == {"a"}
    assert len(second["a"].samples) == 1 and [str(error) for error in lost] == ["died"]


def test_nobody_is_asked_what_he_cannot_do() -> None:
    log: list[str] = []
    engines = [Scripted("a", log), Scripted("b", log, frozenset({"prefill"}))]
    prompt, users = measure(engines, [Task("prefill", 8), Task("batch", 2)], 1)
    assert set(prompt) == {"a", "b"} and set(users) == {"a"}


@pytest.mark.parametrize(
    ("task", "label", "tokens", "length"),
    [
        (Task("prefill", 128), "prefill 128", 128, 128),
        (Task("decode", 32, 1024), "decode at 1024", 32, 1056),
        (Task("batch", 8, 16, 4), "8 users", 32, 20),
    ],
)
def test_tasks(task: Task, label: str, tokens: int, length: int) -> None:
    assert (task.label, task.tokens, task.length) == (label, tokens, length)


def test_ratio_is_of_pairs() -> None:
    task = Task("prefill", 1)
    ratio = Ratio.of(Figure(task, "a", (2.0, 8.0, 3.0)), Figure(task, "b", (1.0, 2.0, 1.0)))
    assert (ratio.low, ratio.median, ratio.high) == (2.5, 3.0, 3.5)
    assert Ratio.of(Figure(task, "a", (2.0,)), Figure(task, "b", (1.0,))) == Ratio(2.0, 2.0, 2.0)


def test_spread_stays_within_the_samples() -> None:
    assert spread((1.0,)) == 0
    assert spread((1.0, 3.0)) == pytest.approx(0.25)
    assert spread((2.0, 2.0, 2.0)) == 0
