"""What this machine can do: how fast it reads its memory, how fast it multiplies.

Knows nothing of models; the limits it finds are those that kernels are compared with.
"""

import ctypes
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.jit.compiler import Kernel, Library
from seventy.jit.isa import Isa
from seventy.kernels import bandwidth, peak
from seventy.kernels.bandwidth import Pattern
from seventy.machine import pinned, topology
from seventy.machine.memory import allocate, available_bytes
from seventy.machine.topology import Topology, pin_thread

_MEGABYTE = 1 << 20
# Whole chunks and whole huge pages.
_MULTIPLE = 8 * _MEGABYTE


@dataclass(frozen=True, slots=True)
class ReadPattern:
    """How memory is read: the pattern of loads, and the bytes that a thread claims at once."""

    loads: Pattern
    chunk_bytes: int


def read_patterns(lanes: int) -> list[ReadPattern]:
    """List the patterns of reading that were fastest on some machine; which one wins differs between machines and
    moments.

    On Zen 4 one core reads 26 GB/s by 256-bit loads from two or four places, 23 from one, 19 by 512-bit loads.
    """
    wide, narrow = lanes, min(lanes, 8)
    return [
        ReadPattern(Pattern(narrow, streams=2, lines=4), 2 * _MEGABYTE),
        ReadPattern(Pattern(narrow, streams=4, lines=4), 8 * _MEGABYTE),
        ReadPattern(Pattern(narrow, streams=1, lines=4), 2 * _MEGABYTE),
        ReadPattern(Pattern(narrow, streams=2, lines=8), 2 * _MEGABYTE),
        ReadPattern(Pattern(wide, streams=4, lines=2), 2 * _MEGABYTE),
        ReadPattern(Pattern(wide, streams=1, lines=4, ahead=2048), 2 * _MEGABYTE),
    ]


def buffer_bytes(machine: Topology) -> int:
    """Return the bytes to read in a measurement: 16 last-level caches, at most a quarter of the free memory."""
    free = available_bytes()
    wanted = min(max(512 * _MEGABYTE, 16 * machine.last_level_cache_bytes), free // 4)
    if wanted < 64 * _MEGABYTE:
        raise SeventyError(
            "measuring memory needs 256 MB, and {free:.0f} MB are free; close something and try again",
            free=free / 1e6,
        )
    return wanted


def touched(nbytes: int, cpus: Sequence[int], seconds: float = 5.0) -> NDArray[np.uint8]:
    """Memory written by threads on these CPUs, hence on their node.

    At least half of `nbytes`, where a host that lends memory only when it is used takes more than `seconds`.
    """
    memory = allocate(nbytes)
    end = time.perf_counter() + seconds
    lock = threading.Lock()
    written = 0

    def write(cpu: int) -> None:
        nonlocal written
        pin_thread({cpu})
        while True:
            with lock:
                late = time.perf_counter() > end and written >= nbytes // 2
                if late or written >= nbytes:
                    return
                start, written = written, written + _MULTIPLE
            # Unlike numpy's fill it lets the other threads run.
            ctypes.memset(memory.ctypes.data + start, 1, min(_MULTIPLE, nbytes - start))

    team = [threading.Thread(target=write, args=(cpu,), daemon=True) for cpu in cpus]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return memory[:written]


def node_memories(machine: Topology, nbytes: int) -> dict[int, NDArray[np.uint8]]:
    """Allocate about `nbytes` in all, equally on the nodes that have usable cores."""
    cpus: dict[int, list[int]] = {}
    for core in machine.usable:
        cpus.setdefault(core.node, []).append(core.cpus[0])
    share = max(_MULTIPLE, nbytes // len(cpus) // _MULTIPLE * _MULTIPLE)
    return {node: touched(share, here) for node, here in cpus.items()}


@dataclass(frozen=True, slots=True)
class Area:
    """Memory, and the CPUs whose threads read it."""

    memory: NDArray[np.uint8]
    cpus: Sequence[int]


def local_areas(machine: Topology, memories: Mapping[int, NDArray[np.uint8]], cpus: Sequence[int]) -> list[Area]:
    """Assign to each CPU an area of its own node's memory, all of about the same size."""
    groups: dict[int, list[int]] = {}
    for cpu in cpus:
        groups.setdefault(machine.node_of(cpu), []).append(cpu)
    most = max(len(group) for group in groups.values())
    return [
        Area(memories[node][: max(1, len(memories[node]) * len(group) // most // _MULTIPLE) * _MULTIPLE], group)
        for node, group in groups.items()
    ]


def read_once(library: Library, pattern: ReadPattern, areas: Sequence[Area]) -> float:
    """Measure the GB/s (1e9) of one pass over all areas at once, by one thread on each CPU."""
    arrived, sums = np.zeros(8, np.int64), np.zeros(sum(len(area.cpus) for area in areas), np.uint32)
    step = pattern.loads.step_bytes
    calls: list[pinned.Call] = []
    nbytes = 0
    for area in areas:
        # Some chunks for every thread, or the last ones to be claimed are waited for.
        chunk = min(pattern.chunk_bytes, len(area.memory) // (8 * len(area.cpus))) // step * step
        chunks = len(area.memory) // chunk
        values = {
            "buffer": area.memory.ctypes.data,
            "chunks": chunks,
            "chunk_bytes": chunk,
            "arrived": arrived.ctypes.data,
            "sums": sums.ctypes.data,
        }
        arguments = np.array([values[name] for name in bandwidth.ARGUMENTS], np.int64)
        counter = np.zeros(8, np.int64)
        calls += [pinned.Call(cpu, arguments, counter) for cpu in area.cpus]
        nbytes += chunks * chunk
    function = library.address(Kernel("seventy.kernels.bandwidth:build", (pattern.loads,)))
    return nbytes / pinned.run(function, calls) / 1e9


@dataclass(frozen=True, slots=True)
class Samples:
    """GB/s (1e9) of many passes, by way of reading."""

    passes: Sequence[Sequence[float]]

    @property
    def best_gbs(self) -> float:
        return max(max(way) for way in self.passes)

    @property
    def typical_gbs(self) -> float:
        """The median GB/s of the read pattern with the best median: what is reached most of the time."""
        return max(sorted(way)[len(way) // 2] for way in self.passes)


def read_samples(library: Library, areas: Sequence[Area], seconds: float) -> Samples:
    """Measure passes in each read pattern in turn, each at least once, until the time is over."""
    ways = read_patterns(library.isa.lanes)
    library.load([Kernel("seventy.kernels.bandwidth:build", (pattern.loads,)) for pattern in ways])
    passes: list[list[float]] = [[] for _ in ways]
    end = time.perf_counter() + seconds
    while not passes[-1] or time.perf_counter() < end:
        for pattern, samples in zip(ways, passes, strict=True):
            samples.append(read_once(library, pattern, areas))
    return Samples(passes)


def read_now(library: Library, area: Area) -> float:
    """Return the highest GB/s (1e9) of one pass in each read pattern: what memory delivers at this moment."""
    ways = read_patterns(library.isa.lanes)
    library.load([Kernel("seventy.kernels.bandwidth:build", (pattern.loads,)) for pattern in ways])
    return max(read_once(library, pattern, [area]) for pattern in ways)


def read_local(library: Library, threads: int) -> Samples:
    """Measure for a second how `threads` threads, on physical cores, read memory of their own NUMA nodes."""
    machine = topology.read()
    cores = machine.spread()
    memories = node_memories(machine, buffer_bytes(machine))
    areas = local_areas(machine, memories, [cores[i % len(cores)] for i in range(threads)])
    return read_samples(library, areas, seconds=1.0)


def multiply_once(library: Library, kind: str, lanes: int, cpus: Sequence[int], passes: int) -> tuple[float, float]:
    """Measure the GOPS (1e9 operations/s, two per multiply-add) of kernels/peak.py on these CPUs, and the seconds."""
    threads = len(cpus)
    xs, ys = peak.shape(library.isa.dot == "vnni")
    steps = 8 * peak.GROUP
    vector_bytes = 4 * lanes
    # As floats, bytes of 1 would be numbers whose products are denormal, and slow.
    one = np.ones(1, np.float32).view(np.uint8) if kind == "f32" else np.ones(4, np.uint8)
    x, y = np.tile(one, steps * xs * lanes), np.tile(one, ys * lanes)
    arrived, sums = np.zeros(8, np.int64), np.zeros(threads * xs * ys * vector_bytes, np.uint8)
    words = {
        "x": x.ctypes.data,
        "x_bytes": len(x),
        "y": y.ctypes.data,
        "passes": passes,
        "arrived": arrived.ctypes.data,
        "sums": sums.ctypes.data,
    }
    arguments = np.array([words[name] for name in peak.ARGUMENTS], np.int64)
    function = library.address(Kernel("seventy.kernels.peak:build", (kind, lanes, xs, ys)))
    seconds = pinned.run(function, [pinned.Call(cpu, arguments, np.zeros(8, np.int64)) for cpu in cpus])
    steps //= peak.GROUP if kind == "nibbles" else 1
    return threads * passes * steps * peak.operations(kind, lanes, xs * ys) / seconds / 1e9, seconds


def _peak(library: Library, ways: Sequence[tuple[str, int]], cpus: Sequence[int], seconds: float) -> float:
    passes = dict.fromkeys(ways, 1)
    best, end = 0.0, time.perf_counter() + seconds
    while True:
        for kind, lanes in ways:
            gops, took = multiply_once(library, kind, lanes, cpus, passes[kind, lanes])
            # Runs of 10 ms or more: long beside a thread's start, short beside what else the machine does.
            if took < 0.01:
                passes[kind, lanes] *= 4
                end = max(end, time.perf_counter() + seconds / 2)
            else:
                best = max(best, gops)
        if best and time.perf_counter() > end:
            return best


def widths(isa: Isa) -> list[int]:
    """List the vector widths to try, in lanes: some CPUs lower their clock for 512 bits."""
    return [isa.lanes, 8] if isa.lanes == 16 else [isa.lanes]


def int8_peak(library: Library, cpus: Sequence[int], seconds: float = 0.3) -> float:
    """Measure the most GOPS of bytes multiplied and added, one thread on each of these CPUs, at this ISA level."""
    kinds = ["bytes", "nibbles"] if library.isa.dot == "maddubs" else ["bytes"]
    return _peak(library, [(kind, lanes) for kind in kinds for lanes in widths(library.isa)], cpus, seconds)


def float_peak(library: Library, cpus: Sequence[int], seconds: float = 0.3) -> float:
    """Measure the highest GFLOPS at which these CPUs, one thread on each, multiply and add f32."""
    return _peak(library, [("f32", lanes) for lanes in widths(library.isa)], cpus, seconds)
