"""How fast files come from the disk, with the page cache out of the way."""

import contextlib
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from seventy.errors import SeventyError
from seventy.language import t

_BLOCK = 8 << 20
# Solid-state disks give all they have only to several requests at once.
_THREADS = 4


def _open(path: Path) -> int:
    """A descriptor that reads past the page cache where the file system allows it."""
    if hasattr(os, "O_DIRECT"):
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_DIRECT)
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def drop_cached(path: Path) -> None:
    """Ask the system to drop a file from the page cache, as far as it is written to disk."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_rate(path: Path, seconds: float = 3.0) -> float:
    """Measure the GB/s (1e9) of reading a file sequentially from its start, for at most `seconds`."""
    try:
        size = path.stat().st_size
        drop_cached(path)
        descriptor = _open(path)
    except OSError as error:
        raise SeventyError("cannot read {path}: {reason}", path=path, reason=error.strerror) from None
    lock = threading.Lock()
    state = {"next": 0, "read": 0}
    problems: list[OSError] = []
    begin = time.perf_counter()

    def work() -> None:
        # Page-aligned, as reading past the cache asks for.
        with mmap.mmap(-1, _BLOCK) as block:
            while time.perf_counter() < begin + seconds:
                with lock:
                    offset, state["next"] = state["next"], state["next"] + _BLOCK
                if offset >= size:
                    return
                try:
                    got = _read_at(descriptor, block, offset, lock)
                except OSError as error:
                    problems.append(error)
                    return
                with lock:
                    state["read"] += got

    team = [threading.Thread(target=work, daemon=True) for _ in range(_THREADS)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    elapsed = time.perf_counter() - begin
    os.close(descriptor)
    if problems or not state["read"]:
        why = problems[0].strerror if problems else t("it is empty")
        raise SeventyError("cannot read {path}: {why}", path=path, why=why)
    return state["read"] / elapsed / 1e9


def _read_at(descriptor: int, block: mmap.mmap, offset: int, lock: threading.Lock) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [block], offset)
    with lock:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return len(os.read(descriptor, _BLOCK))


@contextlib.contextmanager
def scratch_file(folder: Path, nbytes: int, seconds: float = 5.0) -> Iterator[Path]:
    """Create a temporary file of random bytes in the folder; it is shorter if writing takes more than `seconds`.

    Raises SeventyError if it cannot be written.
    """
    # Random, because some file systems compress; more than any of them looks back for repeats.
    block = os.urandom(4 * _BLOCK)
    path = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=folder, prefix="measure-")
            path = Path(name)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                end = time.perf_counter() + seconds
                for _ in range(max(1, nbytes // len(block))):
                    file.write(block)
                    os.fsync(file.fileno())
                    if time.perf_counter() > end:
                        break
        except OSError as error:
            raise SeventyError("cannot write to {folder}: {reason}", folder=folder, reason=error.strerror) from None
        yield path
    finally:
        if path:
            path.unlink(missing_ok=True)
