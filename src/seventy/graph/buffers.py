"""Which operation needs which memory until when, and where that memory lies.

Every result of an operation is a `Memory` of its own while the program is written. `place` gives memory to all of them
at once: two share a place only where the last use of one is before the first of the other, with a barrier between.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seventy.machine.memory import allocate


@dataclass(slots=True, eq=False)
class Memory:
    """Bytes that some operation writes and others read.

    What is `kept` is read after the last operation, too: it shares its place with nothing, and is zero at first.
    """

    nbytes: int
    kept: bool = False
    place: NDArray[np.uint8] | None = None

    @property
    def address(self) -> int:
        assert self.place is not None, "memory is placed when the program is finished"
        return int(self.place.ctypes.data)


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Rows of floats, padded to whole panels; `count` is the address of how many there are in this step."""

    memory: Memory
    columns: int
    stride: int
    capacity: int
    count: int

    def floats(self, rows: int) -> NDArray[np.float32]:
        """Return the first `rows` rows, [rows, columns], as a view."""
        assert self.memory.place is not None
        whole = self.memory.place[: rows * self.stride].view(np.float32).reshape(rows, self.stride // 4)
        return whole[:, : self.columns]


@dataclass(frozen=True, slots=True)
class Access:
    """The objects that an operation reads and writes: memory, or any other object such as a layer's cache."""

    reads: tuple[object, ...]
    writes: tuple[object, ...]


def barriers(accesses: Sequence[Access]) -> list[bool]:
    """Return for each operation whether it must wait for all before it.

    It must where it reads what an operation since the last barrier wrote, or writes what one wrote or read.
    """
    found, written, read = [], set[int](), set[int]()
    for access in accesses:
        reads, writes = ({id(thing) for thing in things} for things in (access.reads, access.writes))
        barrier = bool(written & reads or (written | read) & writes)
        if barrier:
            written, read = set(), set()
        written |= writes
        read |= reads
        found.append(barrier)
    return found


def place(accesses: Sequence[Access]) -> list[NDArray[np.uint8]]:
    """Give every Memory of the operations its place; return the areas that were allocated.

    Sharing adds no barrier: a place is free for a new owner only where a barrier stands between the last use by the
    old one and the first by the new one.
    """
    waits = barriers(accesses)
    first: dict[Memory, int] = {}
    last: dict[Memory, int] = {}
    for at, access in enumerate(accesses):
        for thing in (*access.reads, *access.writes):
            if isinstance(thing, Memory):
                first.setdefault(thing, at)
                last[thing] = at
    # Of each memory the operations from the barrier before its first use to its last use.
    spans, barrier = {}, 0
    for memory, start in sorted(first.items(), key=lambda item: item[1]):
        barrier = max((at for at in range(barrier, start + 1) if waits[at]), default=barrier)
        spans[memory] = (0, len(accesses)) if memory.kept else (barrier, last[memory])
    # The largest first, each where the first is that has room: so many layers take what one takes.
    slots: list[_Slot] = []
    for memory in sorted(spans, key=lambda memory: -memory.nbytes):
        slot = next((slot for slot in slots if slot.is_free(spans[memory])), None)
        if slot is None:
            slots.append(slot := _Slot(memory.nbytes, [], []))
        slot.spans.append(spans[memory])
        slot.owners.append(memory)
    areas = []
    for slot in slots:
        areas.append(area := allocate(slot.nbytes))
        for memory in slot.owners:
            memory.place = area[: memory.nbytes]
    return areas


@dataclass(frozen=True, slots=True)
class _Slot:
    nbytes: int
    spans: list[tuple[int, int]]
    owners: list[Memory]

    def is_free(self, span: tuple[int, int]) -> bool:
        """Return whether no owner uses the slot anywhere in this span."""
        start, end = span
        return all(end < first or last < start for first, last in self.spans)
