"""How many rows of prompts a step can carry, from how long steps took on this machine."""

import itertools

from seventy.engine.model import MAX_ROWS

# Few enough that a newcomer or a disconnect never waits long, many enough to run at the speed of arithmetic.
_LONGEST_STEP_SECONDS = 1.5
# A prompt always moves, however slow the machine.
_FEWEST_ROWS = 4
_FIRST_ROWS = 32


class Pace:
    """Steps of 1, 2, 4 ... rows and their seconds, learnt as they run.

    A step beside running answers may take `slowdown` times what the answers alone take.
    """

    def __init__(self, slowdown: float) -> None:
        self.slowdown = slowdown
        self._seconds: dict[int, float] = {}

    def record(self, decoding: int, rows: int, seconds: float) -> None:
        """A step of so many rows took so long; `decoding` of them were of running answers."""
        # Counted at the next power of two: a step of 5 rows costs what one of 8 does, in tiles.
        size = _size(rows)
        seconds *= size / rows if rows > 8 else 1
        known = self._seconds.get(size)
        # Slower at once, faster by and by: a step that is too long is felt by everybody.
        share = 0.25 if known is not None and seconds < known else 0.5
        self._seconds[size] = seconds if known is None else known + (seconds - known) * share
        # What was slow once, by chance, is tried again some time.
        for other in self._seconds:
            if other > size and rows > decoding:
                self._seconds[other] *= 0.999

    def prompt_rows(self, decoding: int) -> int:
        """Rows of prompts for the next step, beside the running answers."""
        if not self._seconds:
            return _FIRST_ROWS
        limit = _LONGEST_STEP_SECONDS
        if decoding:
            limit = min(limit, self.slowdown * self._predict(_size(decoding)))
        rows = max(itertools.takewhile(lambda size: self._predict(size) <= limit, _SIZES), default=1)
        return min(max(rows - decoding, _FEWEST_ROWS), MAX_ROWS - decoding)

    def _predict(self, size: int) -> float:
        """Seconds of a step: measured, between its measured neighbours, or in proportion beyond them."""
        known = self._seconds
        if size in known:
            return known[size]
        below = max((s for s in known if s < size), default=None)
        above = min((s for s in known if s > size), default=None)
        if below is None:
            assert above is not None, "nothing measured"
            return known[above]
        if above is None:
            return known[below] * (size / below if below >= 8 else max(1.0, size / 8))
        return known[below] + (known[above] - known[below]) * (size - below) / (above - below)


def _size(rows: int) -> int:
    return 1 << (rows - 1).bit_length()


_SIZES = [1 << bit for bit in range(MAX_ROWS.bit_length())]
