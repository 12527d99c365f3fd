"""Runs one kernel on numpy arrays, with as many threads as a test likes."""

import ctypes
import functools
import threading
from collections.abc import Sequence

import numpy as np

from seventy.jit.compiler import Kernel, Library
from seventy.jit.isa import Isa

_SIGNATURE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)


@functools.cache
def library(isa: Isa) -> Library:
    return Library(isa)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def call(isa: Isa, kernel: Kernel, names: Sequence[str], threads: int = 1, **arguments: int | np.ndarray) -> None:
    """Calls a program kernel; arrays are passed by address, arguments not given are 0."""
    assert set(arguments) <= set(names), f"{sorted(set(arguments) - set(names))} are not arguments"
    words = [arguments.get(name, 0) for name in names]
    block = np.array([address(w) if isinstance(w, np.ndarray) else w for w in words], np.int64)
    counter = np.zeros(16, np.int64)
    function = _SIGNATURE(library(isa).address(kernel))
    team = [
        threading.Thread(target=function, args=(address(block), address(counter), i, threads)) for i in range(threads)
    ]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()


def count(n: int) -> np.ndarray:
    return np.array([n], np.int64)
