"""Large memory and how much of it this process may have."""

import contextlib
import mmap
import sys

import numpy as np
import psutil
from numpy.typing import NDArray

from seventy.machine.cgroup import memory_free

_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20


def allocate(nbytes: int) -> NDArray[np.uint8]:
    """Zeroed memory from the system, page-aligned, in huge pages where Linux gives them; freed with the array."""
    if sys.platform != "linux":
        return np.frombuffer(mmap.mmap(-1, max(nbytes, mmap.PAGESIZE)), np.uint8)[:nbytes]
    # Private: shared memory, Python's default, is not given huge pages, and small ones halve the read bandwidth.
    area = mmap.mmap(-1, nbytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel without transparent huge pages refuses; ordinary pages do.
    with contextlib.suppress(OSError):
        area.madvise(_MADV_HUGEPAGE)
    memory = np.frombuffer(area, np.uint8)
    start = -memory.ctypes.data % (_HUGE_PAGE if nbytes >= _HUGE_PAGE else mmap.PAGESIZE)
    return memory[start : start + nbytes]


def available_bytes() -> int:
    """Memory this process can take without swapping: what the system has free, within the cgroup's limit."""
    free = int(psutil.virtual_memory().available)
    limited = memory_free()
    return free if limited is None else max(0, min(free, limited))


def total_bytes() -> int:
    return int(psutil.virtual_memory().total)


def peak_rss_bytes() -> int:
    """The most memory this process ever held."""
    try:
        import resource
    except ImportError:
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
