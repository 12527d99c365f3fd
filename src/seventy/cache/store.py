"""Pages and states on disk: what the tree evicts is written, and found again, also after a restart.

A file holds a page, or the state after a page, named by a hash of the model, of how its cache lies in memory, and of
all tokens up to there (cache/prefix.py counts it along). A file is written whole under another name, then renamed; it
begins with a checksum of its name and of what it holds. Whatever is wrong with a file or with the disk is a miss. The
files of all models together take `max_bytes`; the longest unused go first. Only the owner may read them, but who can
guess a text can tell from their names whether it was read.

Files are written by a thread, from copies: what waits for a slow disk is bounded, and dropped beyond that.
"""

import hashlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.language import t
from seventy.machine.topology import yield_to_others

Bytes = NDArray[np.uint8]
_MAGIC = b"70KV\x01\0\0\0"
_HEADER = len(_MAGIC) + hashlib.sha256().digest_size
# What may wait to be written, beside one page or state of any size.
_MAX_WAITING_BYTES = 64 << 20
# After an error of the disk nothing is written for so long.
_PAUSE_SECONDS = 60.0
# Parts of files that were never finished: their writers are dead by then.
_STALE_SECONDS = 600.0
# How much of the room is made free at once.
_TRIMMED = 0.95
# Other processes write to the same folder: what is there is counted anew after so many files.
_COUNT_EVERY = 64
_log = logging.getLogger("seventy.cache")


@dataclass(frozen=True, slots=True)
class DiskCache:
    """The folder in which a cache is kept between runs, and the bytes it may take there."""

    folder: Path
    max_bytes: int


def digest(*parts: bytes) -> bytes:
    """Hash these parts to a name."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.digest()


class PageStore:
    """The files of one model's cache. `key` identifies everything that decides what its pages contain."""

    def __init__(self, disk: DiskCache, key: bytes) -> None:
        """Raises SeventyError where the folder cannot be had."""
        self.key = digest(_MAGIC, key)
        self._root, self._folder = disk.folder, disk.folder / self.key.hex()[:32]
        self._max_bytes = disk.max_bytes
        try:
            for folder in (self._root, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SeventyError(
                "--cache-dir {root} cannot be used: {reason}",
                root=self._root, reason=error.strerror or error,
            ) from None
        self._numbers = itertools.count()
        self._waiting, self._changed = 0, threading.Condition()
        # What the files of all models took when they were last counted, with what was written since.
        self._total, self._uncounted = 0, _COUNT_EVERY
        self._paused_until = 0.0
        # What the thread that writes took of a CPU so far.
        self.cpu_seconds = 0.0
        # Names with what is to be written, or those to be touched.
        self._queue: SimpleQueue[tuple[bytes, list[Bytes]] | list[bytes] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="seventy-cache", daemon=True)
        self._thread.start()

    # By the cache's thread; `has`, `get` and `touch` by any

    def put(self, name: bytes, parts: Iterable[Bytes], until: float = 0.0) -> bool:
        """Let a copy of these parts be written; False where the disk fails, or is behind until then.

        `until` is a time of time.monotonic.
        """
        if self.has(name):
            return True
        if time.monotonic() < self._paused_until:
            return False
        views = list(parts)
        size = sum(view.nbytes for view in views)
        with self._changed:
            while self._waiting and self._waiting + size > _MAX_WAITING_BYTES:
                if not self._changed.wait(until - time.monotonic()):
                    return False
            self._waiting += size
        self._queue.put((name, [np.array(view).reshape(-1).view(np.uint8) for view in views]))
        return True

    def has(self, name: bytes) -> bool:
        """Return whether a file of this name exists, and mark it as used now."""
        with suppress(OSError):
            os.utime(self._path(name))
            return True
        return False

    def get(self, name: bytes, sizes: Sequence[int]) -> list[Bytes] | None:
        """Read an entry as parts of these sizes; None if it is not stored or fails its checksum."""
        path, size = self._path(name), sum(sizes)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != _HEADER + size:
                    raise ValueError(t("another size"))
                header, data = file.read(_HEADER), np.empty(size, np.uint8)
                got = file.readinto(data.data)
            if got != size or header != _header(name, [data]):
                raise ValueError(t("another checksum"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("%s is not taken: %s", path, error)
            with suppress(OSError):
                path.unlink()
            return None
        return np.split(data, np.cumsum(sizes)[:-1])

    def touch(self, names: Iterable[bytes]) -> None:
        """Count these as used now, the last one as the last: what others go on from must stay longer than they."""
        for name in names:
            self.has(name)

    def touch_after(self, names: list[bytes]) -> None:
        """Count these as used when everything is written that was put, as `touch`."""
        self._queue.put(names)

    def close(self) -> None:
        """Write what waits, and end the thread; twice is once."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def drain(self, seconds: float) -> None:
        """Wait until everything is written that was put, or so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, max(0.0, seconds))

    # By its own thread

    def _path(self, name: bytes) -> Path:
        return self._folder / f"{name.hex()}.kv"

    def _work(self) -> None:
        yield_to_others()
        self._remove_stale()
        while (item := self._queue.get()) is not None:
            if isinstance(item, list):
                self.touch(item)
                continue
            name, parts = item
            try:
                self._write(name, parts)
            except OSError as error:
                # Full, read-only, gone: the cache goes on in memory, and this is tried again later.
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
                _log.warning("nothing is written to %s for a while: %s", self._root, error.strerror or error)
            finally:
                self.cpu_seconds = time.thread_time()
                with self._changed:
                    self._waiting -= sum(part.nbytes for part in parts)
                    self._changed.notify_all()

    def _write(self, name: bytes, parts: list[Bytes]) -> None:
        path = self._path(name)
        size = _HEADER + sum(part.nbytes for part in parts)
        if path.exists() or not self._make_room(size):
            return
        # A folder that has vanished is made again.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}-{next(self._numbers)}.part")
        try:
            file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(file, "wb") as out:  # noqa: PTH123
                out.write(_header(name, parts))
                for part in parts:
                    out.write(part.data)
                out.flush()
                os.fsync(out.fileno())
            unfinished.rename(path)
            self._total, self._uncounted = self._total + size, self._uncounted + 1
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise

    def _files(self) -> list[tuple[float, int, str]]:
        """When each file of any model was used, its size and its path; unfinished ones, too."""
        found = []
        with suppress(OSError):
            for folder in os.scandir(self._root):
                with suppress(OSError):
                    for entry in os.scandir(folder.path) if folder.is_dir(follow_symlinks=False) else ():
                        if entry.name.endswith((".kv", ".part")):
                            status = entry.stat(follow_symlinks=False)
                            found.append((status.st_mtime, status.st_size, entry.path))
        return found

    def _make_room(self, size: int) -> bool:
        """Delete what was not used for longest until so many bytes more may be there; False where they never may."""
        if size > self._max_bytes:
            return False
        if self._total + size <= self._max_bytes and self._uncounted < _COUNT_EVERY:
            return True
        files = self._files()
        total = sum(nbytes for _, nbytes, _ in files)
        self._total, self._uncounted = total, 0
        if total + size <= self._max_bytes:
            return True
        for _, nbytes, path in sorted(files):
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108
            total -= nbytes
            if total + size <= self._max_bytes * _TRIMMED:
                break
        self._total = total
        return total + size <= self._max_bytes

    def _remove_stale(self) -> None:
        for used, _, path in self._files():
            if path.endswith(".part") and used < time.time() - _STALE_SECONDS:
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108


def _header(name: bytes, parts: Sequence[Bytes]) -> bytes:
    whole = hashlib.sha256(name)
    for part in parts:
        whole.update(part.data)
    return _MAGIC + whole.digest()
