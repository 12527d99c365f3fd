"""The files of a repository on a hub, and which of them are one model in one quant.

It asks no network: huggingface.py and modelscope.py do, and give what is described here.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from seventy.catalog.quants import quant_of
from seventy.errors import SeventyError

SHARD = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL | re.IGNORECASE)
# What lies beside models in repositories and is none: vision parts, calibration data, adapters, draft and MTP heads.
_OTHER = re.compile(
    r"(?:^|/)mtp[-_.]|(?:^|[-_./])(?:mmproj|imatrix|lora|adapter|draft|dflash|eagle\d?|clip|vae|projector|vocab)"
    r"(?:$|[-_./])",
    re.IGNORECASE,
)


class Interrupted(Exception):
    """An answer that did not come or broke off, and may come when asked again: after `wait_seconds`, if any."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        self.reason = reason
        self.wait_seconds = wait_seconds
        super().__init__(reason)


class Unreachable(SeventyError):
    """A hub that does not answer at all."""


class NotThere(SeventyError):
    """A repository or file that a hub does not have."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a response: the requested bytes, or the `whole` file if the server does not support ranges."""

    whole: bool
    chunks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; `path` is its place there, `sha256` what its bytes must give.

    `repository` is empty for a file of another seventy that comes from none.
    """

    hub: "Hub"
    repository: str
    path: str
    nbytes: int
    sha256: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        outside = not parts or self.path.startswith("/") or ".." in parts or re.search(r"[\\\0\n\r]", self.path)
        if outside or not re.fullmatch(r"(?:\w[\w.-]*/\w[\w.-]*)?", self.repository):
            raise SeventyError(
                "{repository} has a file called {path!r}, which leads out of its folder",
                repository=self.repository, path=self.path,
            )
        if self.nbytes <= 0 or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise SeventyError(
                "{repository} tells no size or no sha256 of {path}; give the file's address",
                repository=self.repository, path=self.path,
            )

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def open(self, start: int, end: int) -> AbstractContextManager[Body]:
        return self.hub.open(self, start, end)


class Hub(Protocol):
    """A model hub. `kind` is "hf" or "ms", `title` is its name for people."""

    kind: str
    title: str
    endpoint: str

    def name(self, repository: str) -> str:
        """Return the full name of a repository, by which the same server is asked again."""
        ...

    def files(self, repository: str) -> list[RemoteFile]:
        """List a repository's .gguf files. Raises Unreachable, NotThere, or SeventyError (no access, for example)."""
        ...

    def open(self, file: RemoteFile, start: int, end: int) -> AbstractContextManager[Body]:
        """Open bytes `start` to `end` of a file as a stream. Raises Interrupted if it is worth trying again."""
        ...


@dataclass(frozen=True, slots=True)
class Variant:
    """A model in one quant: one file, or the files of a split one in order. `quant` is None where no name tells it."""

    quant: str | None
    files: tuple[RemoteFile, ...]

    @property
    def nbytes(self) -> int:
        return sum(file.nbytes for file in self.files)

    @property
    def name(self) -> str:
        return self.files[0].name


def variants(files: Iterable[RemoteFile]) -> list[Variant]:
    """Group the files of a repository by quant, smallest first; split models with missing files are left out.

    Of several models in the same quant, the one whose name is most like the other files' is taken.
    """
    groups: dict[str, list[RemoteFile]] = {}
    for file in files:
        if is_model(file.path):
            shard = SHARD.fullmatch(file.path)
            groups.setdefault(f"{shard['prefix']}/{shard['count']}" if shard else file.path, []).append(file)
    found: dict[str | None, list[Variant]] = {}
    for group in groups.values():
        group.sort(key=lambda file: file.path)
        shard = SHARD.fullmatch(group[0].path)
        if shard and [_number(file.path) for file in group] != list(range(1, int(shard["count"]) + 1)):
            continue
        quant = quant_of(group[0].path)
        found.setdefault(quant, []).append(Variant(quant, tuple(group)))
    stems = [_stem(variant) for each in found.values() for variant in each]
    chosen = [max(each, key=lambda one: (stems.count(_stem(one)), -len(one.name))) for each in found.values()]
    return sorted(chosen, key=lambda variant: variant.nbytes)


def of_file(files: Iterable[RemoteFile], path: str) -> Variant | None:
    """Return the model that the file at this path belongs to, with all its parts, or None."""
    everything = {file.path: file for file in files}
    if path not in everything:
        return None
    shard = SHARD.fullmatch(path)
    if shard is None:
        return Variant(quant_of(path), (everything[path],))
    count = int(shard["count"])
    paths = [f"{shard['prefix']}-{number:05}-of-{shard['count']}{path[-5:]}" for number in range(1, count + 1)]
    missing = [each for each in paths if each not in everything]
    if missing:
        raise SeventyError(
            "the repository lacks {missing}, one of the {count} files of {path}",
            missing=missing[0], count=count, path=path,
        )
    return Variant(quant_of(path), tuple(everything[each] for each in paths))


def is_model(path: str) -> bool:
    """Return whether a file is a model by its name, and not a projector or an adapter."""
    return path.lower().endswith(".gguf") and not _OTHER.search(path)


def _number(path: str) -> int:
    shard = SHARD.fullmatch(path)
    return int(shard["number"]) if shard else 1


def _stem(variant: Variant) -> str:
    """A file's name without quant and number."""
    name = SHARD.sub(r"\g<prefix>", variant.name)
    return re.sub(re.escape(variant.quant or ""), "", name.upper().replace("UD_", "UD-"))
