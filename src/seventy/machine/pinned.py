"""One kernel on several pinned threads at once, timed."""

import ctypes
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.language import t
from seventy.machine.topology import pin_thread

SIGNATURE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)


@dataclass(frozen=True, slots=True)
class Call:
    """A thread's part: the CPU it runs on, and what the kernel (kernels/abi.py) is given."""

    cpu: int
    arguments: NDArray[np.int64]
    counter: NDArray[np.int64]


def run(function: int, calls: Sequence[Call]) -> float:
    """Call the kernel at this address once per thread; return the seconds from the last start to the last end.

    A kernel that first waits for all threads is timed without their start. Raises SeventyError if a CPU cannot be used.
    """
    kernel = SIGNATURE(function)
    begun, ended = [0.0] * len(calls), [0.0] * len(calls)
    # In the kernel threads would wait for ever for one that could not come.
    gate = threading.Barrier(len(calls))
    problems: list[str] = []

    def work(index: int, call: Call) -> None:
        try:
            pin_thread({call.cpu})
            gate.wait()
        except OSError as error:
            problems.append(t("a thread cannot run on CPU {cpu}: {reason}", cpu=call.cpu, reason=error.strerror))
            gate.abort()
            return
        except threading.BrokenBarrierError:
            return
        begun[index] = time.perf_counter()
        kernel(call.arguments.ctypes.data, call.counter.ctypes.data, index, len(calls))
        ended[index] = time.perf_counter()

    team = [threading.Thread(target=work, args=item, daemon=True) for item in enumerate(calls)]
    started: list[threading.Thread] = []
    for thread in team:
        try:
            thread.start()
        except RuntimeError:
            problems.append(t(
                "the system allows {started_count} more threads and {team_count} are needed",
                started_count=len(started), team_count=len(team),
            ))
            gate.abort()
            break
        started.append(thread)
    for thread in started:
        thread.join()
    if problems:
        raise SeventyError(
            "{problems}; try again, or with fewer CPUs: taskset -c 0 seventy measure",
            problems=problems[0],
        )
    return max(ended) - max(begun)
