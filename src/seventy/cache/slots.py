"""Which pages have room in the layers with windows.

A layer with a window reads the last positions of a text only. It keeps keys and values in slots, fewer than there are
pages: a page has one from when it is taken for as long as some sequence needs it, and then until another page wants it.
"""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray


class Slots:
    """`n_slots` slots for some of `n_pages` pages; `of_page` is the slot of each page, -1 where it has none."""

    def __init__(self, n_pages: int, n_slots: int) -> None:
        self.of_page: NDArray[np.int32] = np.full(n_pages, -1, np.int32)
        self._users = [0] * n_pages
        self._free = list(range(n_slots))[::-1]
        # Pages whose slots no sequence needs, the longest unneeded first.
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Slots that can be had: those no sequence needs, with something in them or not."""
        return len(self._free) + len(self._idle)

    def has(self, page: int) -> bool:
        return bool(self.of_page[page] >= 0)

    def take(self, page: int) -> None:
        """Give a page without a slot one, which one sequence needs."""
        if not self._free:
            self.drop(next(iter(self._idle)))
        self.of_page[page] = self._free.pop()
        self._users[page] = 1

    def hold(self, page: int) -> None:
        """Count one more sequence that needs the slot of the page."""
        assert self.has(page), f"page {page} has no slot"
        self._users[page] += 1
        self._idle.pop(page, None)

    def release(self, page: int) -> None:
        """Count one sequence less that needs the slot of the page."""
        self._users[page] -= 1
        if not self._users[page]:
            self._idle[page] = None

    def drop(self, page: int) -> None:
        """Take the slot from a page, where it has one; no sequence needs it."""
        assert not self._users[page], f"the slot of page {page} is in use"
        if self.has(page):
            self._free.append(int(self.of_page[page]))
            self.of_page[page] = -1
            del self._idle[page]

    def move(self, source: int, target: int) -> None:
        """Give the slot of a page to another, which has none and holds the same tokens."""
        assert not self.has(target), f"page {target} has a slot"
        self.of_page[target], self.of_page[source] = self.of_page[source], -1
        self._users[target], self._users[source] = self._users[source], 0
