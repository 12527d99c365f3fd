"""The memory of states."""

import mmap
import resource

import numpy as np

from seventy.cache.spec import Recurrent
from seventy.cache.states import States


def faults() -> int:
    """Pages that this process has had given so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_what_was_touched_is_there_and_unchanged() -> None:
    states = States([Recurrent(((2048, 1024),))], 8)
    states.view(3)[:] = 7
    states.touch()
    before = faults()
    states.memory[:: mmap.PAGESIZE] |= np.uint8(1)
    # Of 36 huge pages or 18 thousand ordinary ones.
    assert faults() - before < 18
    assert np.all(states.view(3) == 7) and states.view(4).max() == 1
