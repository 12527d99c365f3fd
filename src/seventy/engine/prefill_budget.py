"""How many rows of prompts the next step carries, chosen by how long steps took on this machine.

More rows a step read a prompt faster, up to where the machine's arithmetic is full. A dense model is there at some
dozen rows; a mixture of experts needs hundreds, for every row brings experts of its own until nearly all are read.
Beside running answers a step must also be short. This module knows no model and no clock: it is told what steps took.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from seventy.engine.step_times import StepTimes

_FIRST_ROWS = 128
# Of the row counts that are nearly as fast as the best the smallest is taken: a newcomer waits until the step ends.
_NEARLY = math.log(0.985)
# So much of what is read may be read in steps that try a row count: one that is perhaps faster than the best, or
# nearly as fast and smaller.
_TRIALS = 0.15
# How many standard deviations of its estimate count for a trial, and against a step that answers wait for.
_HOPE, _CAUTION = 0.5, 0.5
# A step that took so many times what was expected counts when the next one did, too.
_OUTLIER = math.log(1.5)
# Less cannot be told from noise.
_LEAST_SLOWDOWN = 1.1
# Of the steps since the last prompt so many are learned.
_REMEMBERED = 32
# So often a step without prompts shows what the running answers alone take; before that is known from three steps,
# every other step does.
_STEPS_PER_REFERENCE, _LEAST_REFERENCES = 16, 3


class PrefillBudget:
    """Learns what steps take and plans the rows of prompts in the next one.

    `slowdown` is how many times longer a step may take than one of the running answers alone; less than 1.1 is taken
    for 1.1. `max_rows` is the most rows of a step, those of answers included.
    """

    def __init__(self, slowdown: float, max_rows: int) -> None:
        self.max_rows = max_rows
        self._slowdown = math.log(max(slowdown, _LEAST_SLOWDOWN))
        self._times = StepTimes()
        self._sizes = _sizes(max_rows)
        # Most rows of a step with prompts so far.
        self._largest = 0
        # Rows that trials may still have, and whether the step that was planned last is one.
        self._trial_rows = 0.0
        self._is_trial = False
        self._surprising = False
        # Steps of answers alone that StepTimes has not been told of: how many, and the last of them.
        self._untold = 0
        self._answers: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)

    def record(self, answer_rows: int, rows: int, seconds: float) -> None:
        """Learn from a step of `rows` rows, `answer_rows` of them of running answers."""
        if rows == answer_rows:
            # Learned when a prompt comes: between two tokens of an answer nothing is done that can be done later.
            self._untold += 1
            self._answers.append((rows, seconds))
            return
        self._learn_answers()
        if self._largest:
            expected = self._times.estimate(False, np.array([rows]))[0][0]
            was_surprising = self._surprising
            self._surprising = math.log(max(seconds, 1e-9)) - expected > _OUTLIER
            if self._surprising and not was_surprising:
                return
        self._largest = max(self._largest, rows)
        if not answer_rows:
            self._trial_rows += -rows if self._is_trial else _TRIALS * rows
        self._times.add(False, rows, seconds)

    def _learn_answers(self) -> None:
        self._times.skip(self._untold - len(self._answers))
        for rows, seconds in self._answers:
            self._times.add(True, rows, seconds)
        self._answers.clear()
        self._untold = 0

    def prompt_rows(self, answer_rows: int) -> int:
        """Plan the rows of prompts in the next step, beside so many rows of running answers.

        It is 0 now and then when answers run, to measure what they take alone, but not twice in a row; else it is at
        least 1, where `max_rows` has room for it.
        """
        self._learn_answers()
        if not answer_rows:
            return self._alone()
        if self._reference_is_due(answer_rows):
            return 0
        return min(self._beside(answer_rows), self.max_rows - answer_rows)

    def _reference_is_due(self, answer_rows: int) -> bool:
        if self._times.last_was_answers:
            return False
        if self._times.measured(True, answer_rows) < _LEAST_REFERENCES:
            return True
        return self._times.steps_since(True, answer_rows) >= _STEPS_PER_REFERENCE

    def _alone(self) -> int:
        """The smallest step that is surely nearly as fast as the best, or one that is tried."""
        self._is_trial = False
        if not self._largest:
            return min(_FIRST_ROWS, self.max_rows)
        # Until the largest step was tried: twice as many each time.
        if 4 * self._largest < 3 * self.max_rows:
            return min(2 * self._largest, self.max_rows)
        speed, errors = self._speeds(0, self._sizes)
        best = speed.argmax()
        # Standard deviation of how much slower than the best each is.
        spread = np.sqrt(np.maximum(errors.diagonal() + errors[best, best] - 2 * errors[best], 0))
        chosen = np.flatnonzero(speed - spread >= speed[best] + _NEARLY)[0]
        hoped = speed + _HOPE * spread
        faster, as_fast = hoped >= speed[best] - _NEARLY, hoped >= speed[best] + _NEARLY
        smaller = self._sizes < self._sizes[chosen]
        trials = self._sizes[(faster | as_fast & smaller) & (self._sizes <= self._trial_rows)].tolist()
        self._is_trial = bool(trials)
        if trials:
            # The one that was measured longest ago.
            return max(trials, key=lambda size: self._times.steps_since(False, size))
        return int(self._sizes[chosen])

    def _beside(self, answer_rows: int) -> int:
        """The smallest step that is nearly as fast as any that answers allow."""
        if not self._largest:
            return 1
        sizes = self._sizes[(self._sizes > answer_rows) & (self._sizes <= max(2 * self._largest, answer_rows + 1))]
        seconds, errors = self._times.estimate(False, sizes)
        limit = self._times.estimate(True, np.array([answer_rows]))[0][0] + self._slowdown
        short = sizes[seconds + _CAUTION * np.sqrt(errors.diagonal()) <= limit]
        if not len(short):
            return 1
        speed, _ = self._speeds(answer_rows, short)
        return int(short[np.flatnonzero(speed >= speed.max() + _NEARLY)[0]]) - answer_rows

    def _speeds(self, answer_rows: int, sizes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logarithms of the rows of prompts a second in steps of these sizes, and the covariance of their errors."""
        seconds, errors = self._times.estimate(False, sizes)
        return np.log(sizes - answer_rows) - seconds, errors


def _sizes(most: int) -> NDArray[np.int64]:
    """Row counts to choose from: four from each power of two to the next, and the most."""
    sizes = {part << bit for bit in range(most.bit_length()) for part in (4, 5, 6, 7)} | {1, 2, 3, most}
    return np.array(sorted(size for size in sizes if size <= most))
