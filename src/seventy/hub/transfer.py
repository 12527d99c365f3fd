"""A large file by ranges, several at once, into a part file that survives the end of the process at any moment.

The part has its full size from the start (a sparse file). Beside it lies a journal: for each segment of the file, how
many of its bytes are there, as 64-bit numbers. Both are named after the file's sha256, so that a download goes on
with whatever hub has the same bytes, and never goes on with another version. The sha256 is computed while bytes come,
behind them. One process at a time uses a part: store.py holds the lock.
"""

import hashlib
import os
import queue
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from seventy.errors import SeventyError
from seventy.hub.download import PAUSES_SECONDS, Progress
from seventy.hub.listing import Interrupted, RemoteFile
from seventy.language import t
from seventy.sizes import size

SEGMENT_BYTES = 64 << 20
CONNECTIONS = 4
# The longest that a server's wish to wait is followed; one that asks for more is left for another try.
MAX_WAIT_SECONDS = 90.0
_JOURNAL_EVERY_BYTES = 4 << 20
_HASH_BYTES = 8 << 20
# More bytes than this to be read again before the file is right are worth a word.
_LONG_CHECK_BYTES = 2 << 30
_POLL_SECONDS = 0.2
_END_SECONDS = 2.0
Say = Callable[[str], None]


class WrongBytes(SeventyError):
    """A download whose sha256 is not what the hub says; nothing of it is kept."""


class BrokenOff(SeventyError):
    """A download that a hub gave up on; what has come is kept."""


class _NoRanges(Exception):
    """The server sends the whole file where a part of it was asked for."""


def fetch(file: RemoteFile, part: Path, progress: Progress, say: Say, connections: int = CONNECTIONS) -> None:
    """Download a file to `part`, resuming an earlier call, and check its sha256.

    Raises WrongBytes if the sum is wrong (`part` is deleted), or SeventyError if the server gives up (`part` is kept
    for the next call).
    """
    resumed = part.exists()
    try:
        got = _fill(file, part, progress, say, connections, SEGMENT_BYTES)
    except _NoRanges:
        got = _fill(file, part, progress, say, 1, file.nbytes)
    if got == file.sha256:
        return
    discard(part)
    if resumed:
        # A power failure can leave a journal that is ahead of the bytes: once more, from the start.
        say(t("{name} had wrong bytes from an earlier try; fetching it from the start", name=file.name))
        return fetch(file, part, progress, say, connections)
    raise WrongBytes(
        "{name} from {title} came with wrong bytes (sha256 {got}, {sha256} was promised); nothing was kept: try "
        "again, or another hub",
        name=file.name, title=file.hub.title, got=got, sha256=file.sha256,
    )


def discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _journal(part).unlink(missing_ok=True)


def done_bytes(part: Path) -> int:
    """Return how many bytes of the part have arrived, also if another process is writing it."""
    try:
        numbers = array("Q", _journal(part).read_bytes())
    except (OSError, ValueError):
        return 0
    return sum(numbers[1:])


def _journal(part: Path) -> Path:
    return part.with_name(f"{part.name}.journal")


class _Part:
    """The part file and its journal: first the size of a segment, then the bytes there are of each."""

    def __init__(self, path: Path, nbytes: int, segment_bytes: int) -> None:
        count = -(-nbytes // segment_bytes)
        self.nbytes, self.segment_bytes = nbytes, segment_bytes
        try:
            self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self.journal = os.open(_journal(path), os.O_RDWR | os.O_CREAT, 0o644)
            noted = os.pread(self.journal, 8 * (count + 1), 0)
            known = array("Q", noted[: len(noted) // 8 * 8])
            sound = len(known) == count + 1 and known[0] == segment_bytes and os.fstat(self.file).st_size == nbytes
            if not sound or any(known[1 + i] > self.length(i) for i in range(count)):
                known = array("Q", [segment_bytes, *[0] * count])
                os.ftruncate(self.journal, 0)
                os.ftruncate(self.file, 0)
                os.ftruncate(self.file, nbytes)
                os.pwrite(self.journal, known.tobytes(), 0)
        except (OSError, ValueError) as error:
            raise SeventyError("cannot write {path}: {reason}; check the folder", path=path, reason=error) from None
        self.path, self.done = path, known[1:]

    def length(self, segment: int) -> int:
        return min(self.segment_bytes, self.nbytes - segment * self.segment_bytes)

    def write(self, segment: int, chunk: bytes) -> None:
        try:
            at = segment * self.segment_bytes + self.done[segment]
            view = memoryview(chunk)
            while view:
                written = os.pwrite(self.file, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise SeventyError(
                "cannot write {path}: {reason}; free some space there",
                path=self.path, reason=error.strerror,
            ) from None
        self.done[segment] += len(chunk)

    def prefix(self) -> int:
        """Return how many bytes from the start have arrived without a gap."""
        for segment, done in enumerate(self.done):
            if done < self.length(segment):
                return segment * self.segment_bytes + done
        return self.nbytes

    def note(self, segment: int) -> None:
        """Record how much of a segment has been written."""
        os.pwrite(self.journal, self.done[segment].to_bytes(8, "little"), 8 * (segment + 1))

    def close(self, whole: bool) -> None:
        if whole:
            os.fsync(self.file)
        os.close(self.file)
        os.close(self.journal)


class _Digest:
    """The sha256 of a part, as far as its bytes are there from the start on."""

    def __init__(self, part: _Part) -> None:
        self._part, self._sha256, self._at = part, hashlib.sha256(), 0

    def advance(self) -> bool:
        """Hash some more bytes; return whether there were any."""
        end = min(self._part.prefix(), self._at + _HASH_BYTES)
        if end <= self._at:
            return False
        data = os.pread(self._part.file, end - self._at, self._at)
        if not data:
            raise SeventyError("{path} became shorter while it was written; pull again", path=self._part.path)
        self._sha256.update(data)
        self._at += len(data)
        return True

    @property
    def missing(self) -> int:
        return self._part.nbytes - self._at

    def hex(self) -> str:
        return self._sha256.hexdigest()


def _fill(file: RemoteFile, path: Path, progress: Progress, say: Say, connections: int, segment_bytes: int) -> str:
    """Brings what is missing of the part; the sha256 of the whole."""
    part = _Part(path, file.nbytes, segment_bytes)
    missing = [i for i in range(len(part.done)) if part.done[i] < part.length(i)]
    work: queue.SimpleQueue[int] = queue.SimpleQueue()
    for segment in missing:
        work.put(segment)
    stop, failures, digest = threading.Event(), queue.SimpleQueue[BaseException](), _Digest(part)

    def worker() -> None:
        try:
            while not stop.is_set():
                _segment(file, part, work.get_nowait(), stop, say)
        except queue.Empty:
            pass
        except BaseException as error:
            failures.put(error)

    # A single segment may be written from its start again, where the server knows no ranges.
    restarts = len(part.done) == 1
    threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(connections, len(missing)))]
    for thread in threads:
        thread.start()
    try:
        shown = 0.0
        while any(thread.is_alive() for thread in threads) and failures.empty():
            if time.monotonic() - shown >= _POLL_SECONDS:
                shown = time.monotonic()
                progress(sum(part.done), file.nbytes)
            if restarts or not digest.advance():
                _join_any(threads)
        if not failures.empty():
            raise failures.get()
        progress(sum(part.done), file.nbytes)
        if digest.missing > _LONG_CHECK_BYTES:
            say(t("{name} is here; checking its sha256", name=file.name))
        while digest.advance():
            pass
        return digest.hex()
    finally:
        stop.set()
        # Each ends at the next bytes that come; one that waits for a dead server is left behind with its descriptor.
        end = time.monotonic() + _END_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if not any(thread.is_alive() for thread in threads):
            part.close(whole=sum(part.done) == file.nbytes)


def _join_any(threads: list[threading.Thread]) -> None:
    """Waits a moment, and no longer than the threads run."""
    end = time.monotonic() + _POLL_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _segment(file: RemoteFile, part: _Part, segment: int, stop: threading.Event, say: Say) -> None:
    """One segment, asked for again where it breaks off, from there on."""
    start, length, failures = segment * part.segment_bytes, part.length(segment), 0
    while part.done[segment] < length:
        before, reason, wait = part.done[segment], t("the answer ended early"), None
        try:
            with file.open(start + before, start + length) as body:
                if body.whole:
                    if length < part.nbytes:
                        raise _NoRanges
                    part.done[segment] = 0
                _take(part, segment, body.chunks, length, stop)
            if stop.is_set():
                return
        except Interrupted as error:
            reason, wait = error.reason, error.wait_seconds
        finally:
            part.note(segment)
        if part.done[segment] >= length:
            return
        failures = failures + 1 if part.done[segment] <= before else 1
        # A server that never answered is given one more chance only.
        if failures > (len(PAUSES_SECONDS) if sum(part.done) or wait else 1) or (wait or 0) > MAX_WAIT_SECONDS:
            raise BrokenOff(
                "download of {name} from {title} broke off at {done} of {size} ({reason}); pull again to go on from "
                "there, or from another hub",
                name=file.name, title=file.hub.title, done=size(sum(part.done)), size=size(part.nbytes), reason=reason,
            )
        if wait:
            say(t("{title} asks to wait {wait:.0f} s", title=file.hub.title, wait=wait))
        stop.wait(max(PAUSES_SECONDS[failures - 1], wait or 0.0))
        if stop.is_set():
            return


def _take(part: _Part, segment: int, chunks: Iterator[bytes], length: int, stop: threading.Event) -> None:
    noted = part.done[segment]
    for chunk in chunks:
        if stop.is_set():
            return
        room = length - part.done[segment]
        part.write(segment, chunk[:room])
        if part.done[segment] - noted >= _JOURNAL_EVERY_BYTES:
            part.note(segment)
            noted = part.done[segment]
        if len(chunk) > room:
            raise Interrupted(t("the server sent more than was asked for"))
