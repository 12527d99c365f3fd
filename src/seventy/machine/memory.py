"""Large memory and how much of it this process may have."""

import contextlib
import ctypes
import mmap
import platform
import sys
from collections.abc import Iterable

import numpy as np
import psutil
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.machine.cgroup import memory_free
from seventy.sizes import size

_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20
# https://man7.org/linux/man-pages/man2/mbind.2.html, by number, for libc has no mbind.
_MBIND_X86_64 = 237
_MPOL_INTERLEAVE = 3


def allocate(nbytes: int) -> NDArray[np.uint8]:
    """Zeroed memory from the system, page-aligned, in huge pages where Linux gives them; freed with the array.

    SeventyError where the system refuses: a limit of address space (`ulimit -v`, as shells of clusters set it).
    """
    if sys.platform != "linux":
        return np.frombuffer(mmap.mmap(-1, max(nbytes, mmap.PAGESIZE)), np.uint8)[:nbytes]
    try:
        # Private: shared memory, Python's default, is not given huge pages, and small ones halve the read bandwidth.
        area = mmap.mmap(-1, nbytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise SeventyError(
            "the system gives no {nbytes} of memory ({reason}); ulimit -v says whether there is a limit of address "
            "space: raise it, or take a smaller model or --context",
            nbytes=size(nbytes), reason=error.strerror,
        ) from None
    # A kernel without transparent huge pages refuses; ordinary pages do.
    with contextlib.suppress(OSError):
        area.madvise(_MADV_HUGEPAGE)
    memory = np.frombuffer(area, np.uint8)
    start = -memory.ctypes.data % (_HUGE_PAGE if nbytes >= _HUGE_PAGE else mmap.PAGESIZE)
    return memory[start : start + nbytes]


def interleave(memory: NDArray[np.uint8], nodes: Iterable[int]) -> bool:
    """Spread the untouched pages of memory from `allocate` evenly over NUMA nodes; return whether the system did it.

    A container may not allow it; then pages are placed where they are first touched.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or not memory.nbytes:
        return False
    mask = sum(1 << node for node in nodes)
    words = (ctypes.c_ulong * (mask.bit_length() // 64 + 1))()
    for i in range(len(words)):
        words[i] = mask >> (64 * i) & (1 << 64) - 1
    address, length = (ctypes.c_ulong(number) for number in (memory.ctypes.data, memory.nbytes))
    # The kernel reads one bit less than it is told.
    bits = ctypes.c_ulong(64 * len(words) + 1)
    done: int = ctypes.CDLL(None).syscall(
        ctypes.c_long(_MBIND_X86_64), address, length, ctypes.c_ulong(_MPOL_INTERLEAVE), words, bits, ctypes.c_ulong(0)
    )
    return done == 0


def available_bytes() -> int:
    """Return the bytes this process can use without swapping: the system's free memory within the cgroup's limit."""
    free = int(psutil.virtual_memory().available)
    limited = memory_free()
    return free if limited is None else max(0, min(free, limited))


def total_bytes() -> int:
    return int(psutil.virtual_memory().total)


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process."""
    try:
        import resource
    except ImportError:
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
