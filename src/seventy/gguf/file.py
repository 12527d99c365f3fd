"""GGUF files, read with distrust: a model as metadata and the places of its tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
Every count is checked against the size of the file before it is believed, arrays stay undecoded until they are
asked for, and a file that is not what it says is one SeventyError. Nothing is memory mapped: a file that shrinks
while it is read is an error too, not a crash. It does not know what the metadata or the tensors mean.
"""

import copy
import os
import re
import stat
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from seventy.errors import SeventyError
from seventy.gguf.header import AGAIN, Header, shown
from seventy.gguf.tensors import GGML_TYPES, TensorInfo
from seventy.language import t

MAX_SHARDS = 4096
_SHARD_NAME = re.compile(r"^(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)


class GGUF:
    """A model file, or all files of a split model (`-00001-of-0000N`, any of which may be named) as one.

    `metadata` is the first file's, with arrays as GGUFArray; `tensors` is those of all files, by name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.paths: list[Path] = []
        self.metadata: Mapping[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self._files: list[int] = []
        self._sizes: list[int] = []
        self._seek_lock = threading.Lock()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def reopened(self) -> Self:
        """Open the same files once more, independently of this object."""
        again = copy.copy(self)
        again._seek_lock = threading.Lock()
        again._files = [os.dup(file) for file in self._files]
        return again

    def pread(self, info: TensorInfo, start: int, nbytes: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read `nbytes` bytes of a tensor from byte `start` on, into `out` (uint8, contiguous) if given.

        Safe in several threads at once. Raises SeventyError if the file has become shorter.
        """
        assert 0 <= start <= start + nbytes <= info.nbytes, f"{info.name}: {start}+{nbytes}"
        if out is None:
            out = np.empty(nbytes, np.uint8)
        assert out.dtype == np.uint8 and out.flags.c_contiguous and out.size == nbytes, f"{out.dtype} {out.shape}"
        view, position, path = out.reshape(-1).data, info.offset + start, self.paths[info.file]
        while view:
            try:
                got = self._read_into(self._files[info.file], view, position)
            except OSError as error:
                raise SeventyError(
                    "cannot read {path}: {reason}; check the disk it is on",
                    path=path, reason=error.strerror,
                ) from error
            if got == 0:
                raise SeventyError(
                    "{path} became shorter while it was read (ends at byte {position}); {again}",
                    path=path, position=position, again=AGAIN,
                )
            view, position = view[got:], position + got
        return out

    def read(self, info: TensorInfo) -> np.ndarray:
        """Read a tensor's bytes as uint8."""
        return self.pread(info, 0, info.nbytes)

    @property
    def main_type(self) -> str | None:
        """The name of the tensor type that most bytes have: what a file's quant is, nearly; None without tensors."""
        return main_type(self.tensors)

    def fileno(self, info: TensorInfo) -> int:
        return self._files[info.file]

    def _read_into(self, file: int, view: memoryview, position: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(file, [view], position)
        with self._seek_lock:
            os.lseek(file, position, os.SEEK_SET)
            data = os.read(file, min(len(view), 1 << 24))
        view[: len(data)] = data
        return len(data)

    def _open(self) -> None:
        paths = [self.path]
        name = _SHARD_NAME.match(self.path.name)
        metadata, tensors = self._open_file(self.path)
        count = _split_count(self.path, metadata)
        if count > 1:
            if name is None or int(name["count"]) != count:
                raise SeventyError(
                    "{path} is one of {count} files of a split model but is not named like one: name them "
                    "NAME-00001-of-{count:05}.gguf and so on",
                    path=self.path, count=count,
                )
            paths = [
                self.path.with_name(f"{name['prefix']}-{number:05}-of-{count:05}.gguf")
                for number in range(1, count + 1)
            ]
            missing = [path.name for path in paths if not path.exists()]
            if missing:
                more = t(" and {missing_count} more", missing_count=len(missing) - 1) if len(missing) > 1 else ""
                raise SeventyError(
                    "{path} is one of {count} files and {missing}{more} is missing: download all {count} into "
                    "{parent}",
                    path=self.path, count=count, missing=missing[0], more=more, parent=self.path.parent,
                )
            self.close()
            self._sizes.clear()
            metadata, tensors = self._open_file(paths[0])
        self.paths, self.metadata = paths, metadata
        self._add(tensors)
        for path in paths[1:]:
            shard, tensors = self._open_file(path)
            if _split_count(path, shard) != count or shard.get("split.no") != len(self._files) - 1:
                raise SeventyError(
                    "{path} says it is file {number} of {of} (counted from 0), not {files_count} of {count}: it "
                    "belongs to another model; {again}",
                    path=path, number=shard.get("split.no"), of=shard.get("split.count"),
                    files_count=len(self._files) - 1, count=count, again=AGAIN,
                )
            self._add(tensors)
        total = metadata.get("split.tensors.count")
        if count > 1 and total is not None and total != len(self.tensors):
            raise SeventyError(
                "{paths} says {total} tensors in {count} files, there are {tensors_count}; download them again",
                paths=paths[0], total=total, count=count, tensors_count=len(self.tensors),
            )

    def _open_file(self, path: Path) -> tuple[dict[str, Any], list[TensorInfo]]:
        try:
            # Looked at before it is opened: opening a pipe or a device could wait for ever.
            if not stat.S_ISREG(path.stat().st_mode):
                kind = t("a folder") if path.is_dir() else t("not a regular file")
                raise SeventyError("{path} is {kind}; give a .gguf file", path=path, kind=kind)
            file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            raise SeventyError("{path} does not exist; check the path, or see: seventy models", path=path) from None
        except (OSError, ValueError) as error:
            raise SeventyError(
                "cannot open {path}: {reason}; check the path and its permissions",
                path=path, reason=error,
            ) from None
        self._files.append(file)
        self._sizes.append(os.fstat(file).st_size)
        header = Header(path, file, self._sizes[-1])
        return header.read(len(self._files) - 1)

    def _add(self, tensors: list[TensorInfo]) -> None:
        for info in tensors:
            if info.name in self.tensors:
                raise SeventyError(
                    "{paths} has a tensor {name} for the second time; {again}",
                    paths=self.paths[info.file], name=shown(info.name), again=AGAIN,
                )
            self.tensors[info.name] = info


def _split_count(path: Path, metadata: Mapping[str, Any]) -> int:
    count = metadata.get("split.count", 1)
    if not isinstance(count, int) or not 0 <= count <= MAX_SHARDS:
        raise SeventyError(
            "{path} says it is one of {count} files; {again}",
            path=path, count=shown(count), again=AGAIN,
        )
    return max(count, 1)


def main_type(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Return the name of the tensor type that most bytes have; None without tensors."""
    nbytes = Counter[str]()
    for tensor in tensors.values():
        nbytes[GGML_TYPES[tensor.type].name] += tensor.nbytes
    return next((name for name, _ in nbytes.most_common(1)), None)
