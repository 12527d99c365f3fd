"""How long a step takes by its number of rows, learned from steps that ran."""

import math
import statistics
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Variances of the natural logarithm of seconds. A measurement errs by a tenth.
_NOISE = 0.1**2
# Before anything is measured: seconds grow with the 0.8th power of rows, from any level, times or divided by a factor
# of 1.6 that is alike for row counts within some doublings of each other.
_SLOPE = 0.8
_LEVEL = 5.0**2
_SHAPE, _SHAPE_DOUBLINGS = 0.5**2, 2.5
# What slows all steps for a while: another program, a longer past.
_LOAD, _LOAD_STEPS = 0.4**2, 20
# Measurements kept of each kind of step near each power of two; one of n rows of prompts until 32 n more were read.
_KEPT = 4
_FORGOTTEN = 32


@dataclass(frozen=True, slots=True)
class _Measurement:
    """A step, how many were measured before it, and how many rows those had."""

    answers: bool
    rows: int
    log_seconds: float
    steps_before: int
    rows_before: int


@dataclass(frozen=True, slots=True)
class _Fit:
    measured: list[_Measurement]
    weights: Floats
    inverse: Floats


class StepTimes:
    """Estimates the seconds of a step by its rows, separately for steps with prompts and without.

    Both curves are fitted together by Gaussian process regression (Rasmussen and Williams, 2006, algorithm 2.1),
    because what slows one kind of step slows the other. Outliers count for less.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[bool, int], deque[_Measurement]] = {}
        self._last_answers: dict[int, deque[float]] = {}
        self._steps = self._rows = 0
        self.last_was_answers = False
        self._fit: _Fit | None = None

    def add(self, answers: bool, rows: int, seconds: float) -> None:
        """Add a measured step; `answers` says that it carried no prompt."""
        kept = self._kept.setdefault((answers, _doublings(rows)), deque(maxlen=_KEPT))
        if answers:
            # Steps with prompts are compared with this one: it must not be one that was slow by chance.
            seconds, last = statistics.median_low([seconds, *self._last_answers.get(rows, ())]), seconds
            self._last_answers.setdefault(rows, deque(maxlen=2)).append(last)
        kept.append(_Measurement(answers, rows, math.log(max(seconds, 1e-9)), self._steps, self._rows))
        if not answers:
            self._forget()
        self._fit, self.last_was_answers = None, answers
        self._steps += 1
        self._rows += rows

    def skip(self, steps: int) -> None:
        """Count steps of answers alone that are not learned, as of one row."""
        self._steps += steps
        self._rows += steps

    def measured(self, answers: bool, rows: int) -> int:
        """Count the remembered steps of about this many rows."""
        return len(self._kept.get((answers, _doublings(rows)), ()))

    def steps_since(self, answers: bool, rows: int) -> float:
        """Count the steps measured since the last one of about this many rows; infinite if there is none."""
        kept = self._kept.get((answers, _doublings(rows)))
        return self._steps - 1 - kept[-1].steps_before if kept else math.inf

    def estimate(self, answers: bool, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Estimate the logarithms of the seconds of steps of these rows, and the covariance of their errors."""
        fit = self._fit = self._fit or self._regress()
        wanted = [_Measurement(answers, int(n), 0.0, self._steps, self._rows) for n in rows]
        across = _covariance(wanted, fit.measured)
        mean = _SLOPE * np.log(rows) + across @ fit.weights
        return mean, _covariance(wanted, wanted) - across @ fit.inverse @ across.T

    def _forget(self) -> None:
        for (answers, _), kept in self._kept.items():
            while not answers and kept and self._rows - kept[0].rows_before > _FORGOTTEN * kept[0].rows:
                kept.popleft()

    def _regress(self) -> _Fit:
        measured = [each for kept in self._kept.values() for each in kept]
        assert measured, "nothing is measured"
        rows = np.array([each.rows for each in measured], np.float64)
        residual = np.array([each.log_seconds for each in measured]) - _SLOPE * np.log(rows)
        covariance, noise = _covariance(measured, measured), np.full(len(measured), _NOISE)
        for _ in range(2):
            # What the curve leaves unexplained of each measurement; more than two deviations are an outlier.
            left = noise * np.linalg.solve(covariance + np.diag(noise), residual)
            noise = np.maximum(_NOISE, left * left / 4)
        inverse = np.asarray(np.linalg.inv(covariance + np.diag(noise)), np.float64)
        return _Fit(measured, inverse @ residual, inverse)


def _covariance(some: list[_Measurement], others: list[_Measurement]) -> Floats:
    """Of the logarithms of seconds, without the noise of measuring: [some, others]."""
    a, b = (
        np.array([(each.answers, math.log2(each.rows), each.steps_before) for each in each_list], np.float64).T
        for each_list in (some, others)
    )
    same_kind, doublings, steps = (x[:, None] - y for x, y in zip(a, b, strict=True))
    shape = _SHAPE * (same_kind == 0) * np.exp(-0.5 * (doublings / _SHAPE_DOUBLINGS) ** 2)
    return np.asarray(_LEVEL + shape + _LOAD * np.exp(-np.abs(steps) / _LOAD_STEPS))


def _doublings(rows: int) -> int:
    return round(math.log2(rows))
