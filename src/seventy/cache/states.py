"""The memory of recurrent layers: states, each of all such layers together after some tokens of a text.

A state never changes once its step is committed: a step reads one and writes another, so that an aborted one leaves
nothing behind, and a sequence may be remembered as it is now by keeping its state (cache/prefix.py). Where a step had
drafted rows, it is that before them, and has a log of what they do: those that turned out right are pending in it.
"""

import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seventy.cache.spec import CacheSpec, Recurrent
from seventy.machine.memory import allocate

# The state before the first token: zeros.
EMPTY = 0


class States:
    """Up to `n_states` states beside the empty one; memory is touched when it is first written.

    Those that sequences use are theirs; of the others, some are remembered.
    """

    def __init__(self, specs: Sequence[CacheSpec], n_states: int) -> None:
        # Where each array of each layer begins in a state.
        self._starts: dict[int, list[int]] = {}
        # Bytes of a state, and of it without the logs of drafted rows.
        self.nbytes = self.kept_bytes = 0
        for layer, spec in enumerate(specs):
            if isinstance(spec, Recurrent):
                self._starts[layer] = [self.nbytes + start for start in spec.starts]
                self.nbytes += spec.nbytes
                self.kept_bytes += spec.nbytes - spec.log_bytes
        self.n_states = n_states if self.nbytes else 0
        self.memory = allocate((1 + self.n_states) * self.nbytes)
        self._users, self._remembered = [0] * (1 + self.n_states), [0] * (1 + self.n_states)
        self._unused = list(range(1, 1 + self.n_states))[::-1]
        self._in_use = 0

    def address(self, layer: int, which: int) -> int:
        """Return the address of one of a layer's arrays in the empty state; that of state i is `nbytes` * i further."""
        return int(self.memory.ctypes.data) + self._starts[layer][which]

    def view(self, state: int) -> NDArray[np.uint8]:
        """Return a state's bytes."""
        return self.memory[state * self.nbytes : (state + 1) * self.nbytes]

    def touch(self) -> None:
        """Make the system provide all of the memory now, before a measurement, not at the first write of a state."""
        every_page = self.memory[:: mmap.PAGESIZE]
        every_page |= 0

    @property
    def free(self) -> int:
        """States that can be had: those no sequence uses, remembered or not."""
        return self.n_states - self._in_use

    @property
    def unused(self) -> int:
        """States that nobody uses and nothing remembers."""
        return len(self._unused)

    def take(self) -> int:
        """Return an unused state for one sequence."""
        state = self._unused.pop()
        self.hold(state)
        return state

    def hold(self, state: int) -> None:
        """Count one more sequence that uses the state."""
        if state != EMPTY:
            self._in_use += not self._users[state]
            self._users[state] += 1

    def release(self, state: int) -> None:
        """Count one sequence less that uses the state."""
        if state != EMPTY:
            self._users[state] -= 1
            self._in_use -= not self._users[state]
            self._drop(state)

    def remember(self, state: int) -> None:
        """Keep the state whether sequences use it or not."""
        self._remembered[state] += 1

    def forget(self, state: int) -> None:
        self._remembered[state] -= 1
        self._drop(state)

    def _drop(self, state: int) -> None:
        if not self._users[state] and not self._remembered[state]:
            self._unused.append(state)
