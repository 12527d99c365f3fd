"""Reads memory as fast as it comes and adds up what it read: the limit that other kernels are compared with."""

from dataclasses import dataclass

from seventy.jit.build import Module
from seventy.jit.simd import sum_lanes
from seventy.jit.types import pointer, u32
from seventy.kernels.abi import Kernel

ARGUMENTS = ("buffer", "chunks", "chunk_bytes", "arrived", "sums")
_LINE = 64
_PREFETCH = "llvm.prefetch.p0"


@dataclass(frozen=True, slots=True)
class Pattern:
    """How a thread reads a chunk: `streams` equal parts in parallel, each `lines` cache lines at a time by vectors of
    `lanes` 32-bit lanes, prefetched `ahead` bytes early (0: left to the CPU).
    """

    lanes: int
    streams: int = 1
    lines: int = 4
    ahead: int = 0

    @property
    def step_bytes(self) -> int:
        """A chunk is a multiple of this."""
        return self.streams * self.lines * _LINE


def build(module: Module, pattern: Pattern) -> None:
    """Build the kernel that measures read bandwidth: sums[thread] = the sum of all 32-bit words it read, modulo 2**32.

    Threads claim chunks. They begin together, once all have counted themselves in `arrived`.
    """
    k = Kernel(module, ARGUMENTS)
    f = k.f
    vector = u32 * pattern.lanes
    k.begin_together(k("arrived", pointer))
    per_step = pattern.lines * _LINE // vector.nbytes
    totals = [[f.variable(vector, 0) for _ in range(min(per_step, 4))] for _ in range(pattern.streams)]
    chunk_bytes, part = k("chunk_bytes"), k("chunk_bytes") // pattern.streams
    with k.claim(k("chunks")) as item:
        base = k("buffer", pointer) + item * chunk_bytes
        streams = [base + part * s for s in range(pattern.streams)]
        with f.loop(0, part, pattern.lines * _LINE) as offset:
            for stream, sums in zip(streams, totals, strict=True):
                place = stream + offset
                if pattern.ahead:
                    for line in range(pattern.lines):
                        # Read, kept in all caches, data.
                        flags = "i32 0, i32 3, i32 1"
                        module.declare(_PREFETCH, f"declare void @{_PREFETCH}(ptr, i32, i32, i32)")
                        f.do(f"call void @{_PREFETCH}(ptr {(place + (pattern.ahead + line * _LINE)).name}, {flags})")
                for i in range(per_step):
                    total = sums[i % len(sums)]
                    total.set(total.get() + f.load(vector, place, i * vector.nbytes))
    whole = totals[0][0].get()
    for total in [t for sums in totals for t in sums][1:]:
        whole = whole + total.get()
    f.store(sum_lanes(whole), k("sums", pointer) + k.thread * 4)
