"""What this machine can do: how fast it reads its memory.

Knows nothing of models; the limits it finds are those that kernels are compared with.
"""

import ctypes
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.jit.compiler import Kernel, Library
from seventy.kernels.bandwidth import ARGUMENTS, Pattern
from seventy.machine import together
from seventy.machine.memory import allocate, available_bytes
from seventy.machine.topology import last_level_cache_bytes, physical_cores, pin_thread

_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Walk:
    """A pattern of reading, and how many bytes a thread claims at once (0: an equal share of everything)."""

    pattern: Pattern
    chunk_bytes: int


def walks(lanes: int) -> list[Walk]:
    """The ways of reading that were fastest somewhere; which of them wins differs between machines and moments."""
    wide, narrow = lanes, min(lanes, 8)
    return [
        Walk(Pattern(narrow, streams=2, lines=4), 2 * _MEGABYTE),
        Walk(Pattern(narrow, streams=1, lines=4), 2 * _MEGABYTE),
        Walk(Pattern(wide, streams=2, lines=2), 0),
        Walk(Pattern(narrow, streams=1, lines=4), 128 << 10),
        Walk(Pattern(narrow, streams=4, lines=4), 0),
        Walk(Pattern(wide, streams=1, lines=4, ahead=2048), 2 * _MEGABYTE),
    ]


def buffer_bytes() -> int:
    """Enough to leave no cache with a share that counts: 16 times the last level, but a quarter of what is free."""
    wanted = max(512 * _MEGABYTE, 16 * last_level_cache_bytes())
    wanted = min(wanted, available_bytes() // 4)
    if wanted < 64 * _MEGABYTE:
        free = available_bytes() / 1e6
        raise SeventyError(f"measuring memory needs 256 MB and {free:.0f} MB are free; close something and try again")
    return wanted // (8 * _MEGABYTE) * (8 * _MEGABYTE)


def touched(nbytes: int, cpus: Sequence[int]) -> NDArray[np.uint8]:
    """Memory written by threads on these CPUs, hence on their nodes, each an equal part."""
    memory = allocate(nbytes)
    part = -(-nbytes // len(cpus))

    def write(start: int, cpu: int) -> None:
        pin_thread({cpu})
        # Unlike numpy's fill it lets the other threads run.
        ctypes.memset(memory.ctypes.data + start, 1, min(part, nbytes - start))

    team = [threading.Thread(target=write, args=item) for item in zip(range(0, nbytes, part), cpus, strict=False)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return memory


def read_once(library: Library, walk: Walk, memory: NDArray[np.uint8], cpus: Sequence[int]) -> float:
    """GB/s (1e9) of one pass over `memory` by one thread on each of `cpus`."""
    threads = len(cpus)
    step = walk.pattern.step_bytes
    chunk = walk.chunk_bytes or max(step, len(memory) // threads // step * step)
    arrived, counter, sums = np.zeros(8, np.int64), np.zeros(8, np.int64), np.zeros(threads, np.uint32)
    words = {
        "buffer": memory.ctypes.data,
        "chunks": len(memory) // chunk,
        "chunk_bytes": chunk,
        "arrived": arrived.ctypes.data,
        "sums": sums.ctypes.data,
    }
    arguments = np.array([words[name] for name in ARGUMENTS], np.int64)
    function = library.address(Kernel("seventy.kernels.bandwidth:build", (walk.pattern,)))
    calls = [together.Call(cpu, arguments.ctypes.data, counter.ctypes.data) for cpu in cpus]
    seconds = together.run(function, calls)
    return words["chunks"] * chunk / seconds / 1e9


def read_samples(
    library: Library, memory: NDArray[np.uint8], cpus: Sequence[int], seconds: float
) -> Iterator[tuple[Walk, float]]:
    """Passes over `memory` in every way of reading by turns, each at least once, until the time is over."""
    ways = walks(library.isa.lanes)
    library.load([Kernel("seventy.kernels.bandwidth:build", (walk.pattern,)) for walk in ways])
    end = time.perf_counter() + seconds
    first = True
    while first or time.perf_counter() < end:
        for walk in ways:
            yield walk, read_once(library, walk, memory, cpus)
            if not first and time.perf_counter() > end:
                return
        first = False


def read_bandwidth(library: Library, threads: int, seconds: float = 1.0, nbytes: int | None = None) -> float:
    """The most GB/s (1e9) that `threads` threads, pinned to physical cores, read from memory.

    Best of many passes over `nbytes` (by default far more than the caches hold), in several patterns.
    """
    cores = physical_cores()
    cpus = [cores[i % len(cores)] for i in range(threads)]
    memory = touched(nbytes or buffer_bytes(), cpus)
    return max(gbs for _, gbs in read_samples(library, memory, cpus, seconds))
