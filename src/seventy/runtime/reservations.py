"""What the seventy processes of this machine have promised themselves of its memory.

Memory that is set aside but not yet written, as a KV cache is, does not show in what the system calls available. So
each process keeps a small file that says how much it will use, in a folder that all users share, and everyone who
looks for room takes off what others have promised and do not hold yet. A file belongs to a living process for as long
as that process has it locked (flock); the system takes the lock away when the process ends, however it ends.
"""

import contextlib
import logging
import os
import secrets
import shlex
import stat
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import platformdirs
import psutil

from seventy.errors import SeventyError
from seventy.language import t
from seventy.machine import memory as system
from seventy.runtime import memory
from seventy.sizes import size

try:
    import fcntl
except ImportError:  # Windows has no flock: there promises are checked, and not seen by others.
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger("seventy.runtime")
_SHARED, _NAME = Path("/dev/shm"), "seventy-memory"
# Whoever holds the folder's lock reads a few files; after this long, something is wrong with him.
_LOCK_SECONDS = 10.0


def folders() -> list[Path]:
    """List folders for reservations; the first that works is used. All users share the first."""
    shared = [_SHARED / _NAME] if _SHARED.is_dir() else []
    own = [Path(os.environ["XDG_RUNTIME_DIR"])] if os.environ.get("XDG_RUNTIME_DIR") else []
    return [*shared, *(folder / _NAME for folder in (*own, Path(platformdirs.user_cache_dir("seventy"))))]


class TooLittleMemory(SeventyError):
    """There is not enough memory for a promise now."""


class Reservation:
    """Memory that this process has promised itself, until `release` or until nobody refers to this object."""

    def __init__(self, nbytes: int, handle: int = -1, path: Path | None = None) -> None:
        """`path` is the file that says so, `handle` keeps it open and locked; none where it could not be written."""
        self.nbytes = nbytes
        self._end = None if path is None else weakref.finalize(self, _remove, handle, path, os.getpid())

    def release(self) -> None:
        """Take the promise back; twice is once."""
        if self._end is not None:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _remove(handle: int, path: Path, pid: int) -> None:
    # A forked child has a copy of the handle, and of this duty, which is not its own.
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            path.unlink()
    os.close(handle)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The machine's memory while nobody else can promise any of it: what there is, and what is promised.

    `total` is the machine's, `available` what the system has free, `promised` what seventy processes have promised
    themselves and do not hold yet.
    """

    total: int
    available: int
    promised: int
    _folder: Path | None = field(repr=False)

    @property
    def room(self) -> int:
        """Bytes that a model may take here and now."""
        return memory.room(self.total, max(0, self.available - self.promised))

    def promise(self, nbytes: int, what: str) -> Reservation:
        """Promise memory to this process. Raises TooLittleMemory, beginning with `what`, where there is not enough."""
        if nbytes > self.room:
            promised = t(
                " ({promised} are promised to models already loaded)",
                promised=size(self.promised),
            ) if self.promised else ""
            raise TooLittleMemory(
                "{what} needs {nbytes} of memory and {room} of {total} are free for it{promised}; close other "
                "programs, take a smaller context or quant, or see: seventy plan",
                what=what, nbytes=size(nbytes), room=size(self.room), total=size(self.total), promised=promised,
            )
        if self._folder is None:
            return Reservation(nbytes)
        try:
            return _write(self._folder, nbytes)
        except OSError as error:
            _log.warning("what this process will use of memory cannot be told to others in %s: %s", self._folder, error)
            return Reservation(nbytes)


@contextlib.contextmanager
def ledger() -> Iterator[Ledger]:
    """Lock the ledger: no other process can reserve memory before this context ends."""
    folder, handle = _open()
    try:
        _lock(folder, handle)
        promised = 0 if folder is None else _not_yet_held(folder)
        yield Ledger(system.total_bytes(), system.available_bytes(), promised, folder)
    finally:
        if handle >= 0:
            os.close(handle)


def reserve(nbytes: int, what: str) -> Reservation:
    """Promise memory to this process. Raises TooLittleMemory, beginning with `what`, where there is not enough."""
    with ledger() as found:
        return found.promise(nbytes, what)


@dataclass(frozen=True, slots=True)
class Holder:
    """A living process that has promised itself memory: bytes promised and held, when it began, what was typed."""

    pid: int
    nbytes: int
    resident: int
    since: float
    command: str


def holders() -> list[Holder]:
    """List the processes of this machine that have reserved memory, the oldest first."""
    folder, handle = _open()
    try:
        _lock(folder, handle)
        promised = {} if folder is None else _promised(folder)
    finally:
        if handle >= 0:
            os.close(handle)
    found = [_holder(pid, nbytes) for (pid, started), nbytes in promised.items() if _started(pid) == started]
    return sorted((each for each in found if each), key=lambda each: each.since)


def _holder(pid: int, nbytes: int) -> Holder | None:
    try:
        process = psutil.Process(pid)
        words, since, resident = process.cmdline(), process.create_time(), int(process.memory_info().rss)
    except psutil.Error:
        return None
    # `python -m seventy serve ...`, or a script of that name.
    at = next((i for i, word in enumerate(words) if Path(word).name == "seventy"), 0)
    return Holder(pid, nbytes, resident, since, shlex.join(_without_keys(words[at:])))


def _without_keys(words: Sequence[str]) -> Iterator[str]:
    """A command's words, `...` in place of a key: of `--api-key KEY` and of `--api-key=KEY`."""
    for before, word in zip(["", *words], words, strict=False):
        option, equals, _ = word.partition("=")
        if before == "--api-key":
            yield "..."
        else:
            yield f"{option}=..." if equals and option == "--api-key" else word


def _open() -> tuple[Path | None, int]:
    """The folder and a handle on it; None and -1 where there is none that this process can use."""
    if fcntl is None:
        return None, -1
    for folder in folders():
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                # As /tmp: everybody may write, and remove only what is his.
                folder.chmod(0o1777)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            if os.access(folder, os.W_OK):
                return folder, handle
            os.close(handle)
    return None, -1


def _lock(folder: Path | None, handle: int) -> None:
    if handle < 0:
        return
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > until:
                _log.warning("%s is locked by another process for %.0f s; going on without", folder, _LOCK_SECONDS)
                return
            time.sleep(0.01)


def _write(folder: Path, nbytes: int) -> Reservation:
    """A file that says so much, locked for as long as this process has it open."""
    pid = os.getpid()
    path = folder / f"{pid}-{secrets.token_hex(4)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.fchmod(handle, 0o644)
        os.write(handle, f"{pid} {_started(pid)} {nbytes}\n".encode())
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(handle)
        raise
    return Reservation(nbytes, handle, path)


def _not_yet_held(folder: Path) -> int:
    """Bytes that living processes have promised and do not hold."""
    return sum(max(0, nbytes - _resident(*process)) for process, nbytes in _promised(folder).items())


def _promised(folder: Path) -> dict[tuple[int, str], int]:
    """What each living process has promised, by its number and start; files of dead ones are removed."""
    promised: dict[tuple[int, str], int] = {}
    for path in folder.iterdir():
        if (found := _read(path)) is not None:
            pid, started, nbytes = found
            promised[pid, started] = promised.get((pid, started), 0) + nbytes
    return promised


def _read(path: Path) -> tuple[int, str, int] | None:
    """Process, when it started and bytes promised; None of a file that nobody has locked or that is none of ours."""
    try:
        # Not to wait for a writer, should somebody have left a pipe here.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, started, nbytes = os.read(handle, 100).decode().split()
            return int(pid), started, max(0, int(nbytes))
        with contextlib.suppress(OSError):
            path.unlink()
    except (OSError, ValueError):
        pass
    finally:
        os.close(handle)
    return None


def _resident(pid: int, started: str) -> int:
    """Memory that a process holds; 0 where it cannot be seen from here, or the number is now another's."""
    if _started(pid) != started:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _started(pid: int) -> str:
    """When a process started, in the system's ticks, so that its number can be told from a later one's."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "unknown"
