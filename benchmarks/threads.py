"""What the thread pool costs: nanoseconds a barrier, and microseconds a step of threads that spin or sleep.

usage: python benchmarks/threads.py [--threads N]

The program does nothing between its barriers. A step of threads that sleep is also run by one thread alone: the
difference is what waking costs. Medians, and the 10th and 90th percentile; run it on a quiet machine, and more than
once: which CPUs share a core or a cache may differ from start to start of a virtual machine's process.
"""

import argparse
import ctypes
import time

import numpy as np

from seventy.jit import isa
from seventy.jit.compiler import Library
from seventy.kernels import run
from seventy.machine import topology
from seventy.runtime.runtime import shared

BARRIERS, REPEATS, SLEEPS = 200, 3000, 200
# Longer than threads spin before they sleep.
REST_SECONDS = 0.008


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    threads: int = parser.parse_args().threads
    executor = shared.executor(Library(isa.select()), topology.read().cpus_for(threads))
    nothing = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value

    def step_us(barriers: int, threads: int) -> float:
        operations = np.array([(nothing, 0, 1, 0)] * barriers, np.uint64)
        counters = np.zeros(barriers * run.COUNTER_BYTES // 8, np.int64)
        start = time.perf_counter_ns()
        executor.run(operations, counters, threads)
        return (time.perf_counter_ns() - start) / 1000

    def rested_us(threads: int) -> float:
        time.sleep(REST_SECONDS)
        return step_us(1, threads)

    def show(what: str, times: list[float], unit: str) -> None:
        low, median, high = np.percentile(times, (10, 50, 90))
        print(f"{what:<44} {median:8.1f} {unit}  ({low:.1f} to {high:.1f})")

    with executor, executor.lead():
        step_us(BARRIERS, threads)
        long = [step_us(BARRIERS, threads) for _ in range(REPEATS)]
        short = [step_us(1, threads) for _ in range(REPEATS)]
        show(f"a barrier of {threads} threads", [1000 * (t - np.median(short)) / (BARRIERS - 1) for t in long], "ns")
        show(f"a step of one barrier, {threads} threads that spin", short, "us")
        woken, alone = [rested_us(threads) for _ in range(SLEEPS)], [rested_us(1) for _ in range(SLEEPS)]
        show(f"a step of one barrier, {threads} threads that sleep", woken, "us")
        show("the same step by one thread after a rest", alone, "us")


if __name__ == "__main__":
    main()
