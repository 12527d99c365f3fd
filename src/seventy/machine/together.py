"""One kernel on several pinned threads at once, timed."""

import ctypes
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from seventy.machine.topology import pin_thread

SIGNATURE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)


@dataclass(frozen=True, slots=True)
class Call:
    """A thread's part: the CPU it runs on, and what the kernel (kernels/abi.py) is given."""

    cpu: int
    arguments: int
    counter: int


def run(function: int, calls: Sequence[Call]) -> float:
    """Calls the kernel at this address once a thread; the seconds from the last start to the last end.

    A kernel that waits for all threads before it begins is timed without their start.
    """
    kernel = SIGNATURE(function)
    begun, ended = [0.0] * len(calls), [0.0] * len(calls)

    def work(index: int, call: Call) -> None:
        pin_thread({call.cpu})
        begun[index] = time.perf_counter()
        kernel(call.arguments, call.counter, index, len(calls))
        ended[index] = time.perf_counter()

    team = [threading.Thread(target=work, args=item, daemon=True) for item in enumerate(calls)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return max(ended) - max(begun)
