"""What is in a model on a hub before it is fetched: the header of its first file, by a few ranges."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.gguf.header import MAX_HEADER_BYTES, Header
from seventy.gguf.tensors import TensorInfo
from seventy.hub.download import PAUSES_SECONDS
from seventy.hub.listing import Interrupted, RemoteFile
from seventy.hub.transfer import MAX_WAIT_SECONDS
from seventy.language import t

# Metadata alone; the vocabulary, which most headers hold, takes some megabytes.
_FIRST_BYTES = 1 << 20
# What gguf/header.py says where the bytes end before the header does.
_CUT = t("became shorter while it was read")


class RemoteHeader:
    """The metadata and the tensors of a file that is not here: a gguf.source.Source without bytes of tensors."""

    def __init__(self, path: str, metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = tensors

    def pread(
        self, info: TensorInfo, start: int, nbytes: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        raise SeventyError("{path} has not been fetched; seventy pull gets it", path=self.path)

    def read(self, info: TensorInfo) -> NDArray[np.uint8]:
        return self.pread(info, 0, info.nbytes)

    def fileno(self, info: TensorInfo) -> int | None:
        return None

    def reopened(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


def peek(file: RemoteFile) -> RemoteHeader:
    """Read the header of a file on a hub. Raises SeventyError if it cannot be fetched or is invalid."""
    length = min(_FIRST_BYTES, file.nbytes)
    with tempfile.TemporaryFile(buffering=0) as copy:
        while True:
            _append(file, copy, length)
            try:
                # The header is told the file's full size; where it goes on behind what is here, more is fetched.
                metadata, infos = Header(Path(file.path), copy.fileno(), file.nbytes).read(0)
            except SeventyError as error:
                if _CUT not in str(error) or length >= min(file.nbytes, MAX_HEADER_BYTES):
                    raise
                length = min(4 * length, file.nbytes, MAX_HEADER_BYTES)
                continue
            return RemoteHeader(file.name, metadata, {info.name: info for info in infos})


def _append(file: RemoteFile, copy: Any, end: int) -> None:
    """Brings the copy up to byte `end`."""
    for attempt in (1, 2, 3):
        try:
            with file.open(copy.seek(0, 2), end) as body:
                if body.whole:
                    copy.seek(0)
                for chunk in body.chunks:
                    copy.write(chunk[: end - copy.tell()])
                    if copy.tell() >= end:
                        break
            if copy.tell() >= end:
                return
        except Interrupted as error:
            if attempt == 3:
                raise SeventyError(
                    "{title} does not give {name} ({reason}); try again, or another hub",
                    title=file.hub.title, name=file.name, reason=error.reason,
                ) from None
            time.sleep(min(error.wait_seconds or PAUSES_SECONDS[0], MAX_WAIT_SECONDS))
    raise SeventyError(
        "{title} gives {name} only in part; try again, or another hub",
        title=file.hub.title, name=file.name,
    )
