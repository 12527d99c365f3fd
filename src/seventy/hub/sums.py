"""The sha256 of files on this disk: read off a name that says it, remembered, or computed once.

What was computed is kept in the cache folder, under a name made of the file's path, size and time of change.
"""

import contextlib
import hashlib
import re
from pathlib import Path

import platformdirs

from seventy.errors import SeventyError
from seventy.hub.download import Progress
from seventy.machine.records import keep

_CHUNK_BYTES = 8 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def known(path: Path) -> str | None:
    """Return the sha256 of a file if it is recorded; None if it must be computed."""
    # Files of Hugging Face's cache and blobs of Ollama are called by it.
    named = path.resolve().name.removeprefix("sha256-")
    if _SHA256.fullmatch(named):
        return named
    try:
        noted = _note(path).read_text()
    except OSError:
        return None
    return noted if _SHA256.fullmatch(noted) else None


def of_file(path: Path, progress: Progress = lambda done, total: None) -> str:
    """Return the sha256 of a file; compute it if it is not recorded. Raises SeventyError if it cannot be read."""
    if found := known(path):
        return found
    digest, done = hashlib.sha256(), 0
    try:
        note, total = _note(path), path.stat().st_size
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                progress(done, total)
    except OSError as error:
        raise SeventyError("cannot read {path}: {reason}", path=path, reason=error.strerror) from None
    keep(note, digest.hexdigest())
    return digest.hexdigest()


def remember(path: Path, sha256: str) -> None:
    """Note the sum of a file that was just checked."""
    with contextlib.suppress(OSError):
        keep(_note(path), sha256)


def _note(path: Path) -> Path:
    """Where a file's sum is noted; another version of it is noted elsewhere."""
    status = path.stat()
    version = f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    folder = Path(platformdirs.user_cache_dir("seventy")) / "sums"
    return folder / hashlib.sha256(version.encode("utf-8", "surrogateescape")).hexdigest()[:32]
