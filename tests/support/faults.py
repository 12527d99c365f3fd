"""Calls to the system that fail, one after the other: the n-th of a process's reads, writes, opens and so on.

`install` counts calls made from Python after it, and lets one of them fail as a system in trouble would. `Fork` runs a
command of the program in a fork, so that its imports are paid for once.
"""

import _io
import atexit
import builtins
import contextlib
import errno
import io
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Of arrays. What is larger by far (weights, cache) is a map.
_LARGE_BYTES = 1 << 16
_ERRORS = {
    "read": errno.EIO, "write": errno.ENOSPC, "open": errno.EMFILE, "fsync": errno.EIO, "rename": errno.ENOSPC,
    "mmap": errno.ENOMEM, "process": errno.EAGAIN,
}  # fmt: skip
_CALLS = {
    "read": ("read", "pread", "preadv", "readv"),
    "write": ("write", "pwrite", "ftruncate", "posix_fallocate", "mkdir"),
    "open": ("open", "scandir", "listdir"),
    "fsync": ("fsync", "fdatasync"),
    "rename": ("rename", "replace", "link", "unlink"),
}


# A kind of calls, and which of them fails, from 1 on.
Failing = tuple[str, int] | None


class Faults:
    """Counts calls by kind, and lets one of them fail where one is given."""

    def __init__(self, failing: Failing) -> None:
        self.failing, self.counts = failing, Counter[str]()
        self.hit = ""
        self._lock = threading.Lock()

    def count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1
            now = (kind, self.counts[kind]) == self.failing
        if now:
            self.hit = kind
            if kind == "thread":
                raise RuntimeError("can't start new thread")
            if kind == "allocation":
                raise MemoryError
            raise OSError(_ERRORS[kind], os.strerror(_ERRORS[kind]))

    def before(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.count(kind)
            return call(*arguments, **options)

        return counted


def install(failing: Failing) -> Faults:
    """Put the counting calls in place of the system's, for the rest of this process."""
    faults = Faults(failing)
    for kind, names in _CALLS.items():
        for name in names:
            if hasattr(os, name):
                setattr(os, name, faults.before(kind, getattr(os, name)))

    class Raw(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            faults.count("read")
            return super().readinto(buffer)

        def readall(self) -> bytes:
            faults.count("read")
            return super().readall()

        def write(self, data: Any) -> int | None:
            faults.count("write")
            return super().write(data)

    whole_open = io.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
               newline: Any = None, closefd: bool = True, opener: Any = None) -> Any:  # fmt: skip
        if sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):
            # The program's own modules; the interpreter says what is the matter with those.
            return whole_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        faults.count("open")
        if buffering == 0 or "+" in mode:
            return whole_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        data = io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)
        return data if "b" in mode else io.TextIOWrapper(data, encoding or "utf-8", errors, newline)

    builtins.open = io.open = _io.open = opened  # type: ignore[assignment]

    class Map(mmap.mmap):
        def __new__(cls, *arguments: Any, **options: Any) -> "Map":
            faults.count("mmap")
            return super().__new__(cls, *arguments, **options)

    mmap.mmap = Map  # type: ignore[misc]
    threading.Thread.start = faults.before("thread", threading.Thread.start)  # type: ignore[method-assign]
    start = subprocess.Popen.__init__

    def process(self: Any, *arguments: Any, **options: Any) -> None:
        faults.count("process")
        start(self, *arguments, **options)

    subprocess.Popen.__init__ = process  # type: ignore[method-assign]
    for name in ("empty", "zeros", "full", "ones", "tile", "concatenate", "zeros_like"):
        made = getattr(np, name)

        def large(*arguments: Any, make: Any = made, **options: Any) -> Any:
            array = make(*arguments, **options)
            if array.nbytes >= _LARGE_BYTES:
                faults.count("allocation")
            return array

        setattr(np, name, large)
    return faults


@dataclass(frozen=True, slots=True)
class End:
    """How a command ended: exit code (negative: the signal; None: not within the time), what it said, what was hit."""

    code: int | None
    said: str
    counts: Counter[str]
    hit: str

    @property
    def clean(self) -> bool:
        """Whether it ended by itself, without a traceback, and with a sentence where it failed."""
        if self.code is None or self.code < 0 or "Traceback" in self.said or "Exception ignored" in self.said:
            return False
        return self.code == 0 or (self.code in (1, 2, 3) and bool(self.said.strip()))


def forked(
    arguments: Sequence[str],
    failing: Failing,
    log: Path,
    seconds: float = 120,
    during: Callable[[Path, int], None] | None = None,
) -> End:
    """Run the program with these arguments in a fork of this process; `during` is called with its log and id."""
    counts = log.with_suffix(".counts")
    for old in (counts, log):
        old.unlink(missing_ok=True)
    process = os.fork()
    if not process:
        _child(arguments, failing, log, counts)
    if during:
        with contextlib.suppress(OSError):
            during(log, process)
    # Counted by naps: this process may be stopped for a while, and the other with it.
    naps = 0
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            code: int | None = os.waitstatus_to_exitcode(status)
            break
        if naps > 100 * seconds:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            code = None
            break
        time.sleep(0.01)
        naps += 1
    hit, *found = counts.read_text().splitlines() if counts.exists() else [""]
    pairs = (line.split() for line in found)
    said = log.read_text(errors="replace") if log.exists() else ""
    return End(code, said, Counter({kind: int(n) for kind, n in pairs}), hit)


def _child(arguments: Sequence[str], failing: Failing, log: Path, counts: Path) -> None:
    code = 99
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)
        write, make = os.write, os.open
        sys.argv = ["seventy", *arguments]
        from seventy.cli import main

        faults = install(failing)
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        faults.failing = None
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        said = "\n".join([faults.hit, *(f"{kind} {n}" for kind, n in faults.counts.items())])
        write(make(counts, os.O_WRONLY | os.O_CREAT), said.encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
