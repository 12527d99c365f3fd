"""A model's tensors and beside them those of another file, under names of their own: one source."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seventy.gguf.source import Source
from seventy.gguf.tensors import TensorInfo


class Joined:
    """Both as one source, with the metadata of `first`; names of the tensors of `second` begin with `prefix`.

    Neither is closed by it but what `reopened` opened.
    """

    def __init__(self, first: Source, second: Source, prefix: str) -> None:
        self._first, self._second, self._prefix = first, second, prefix
        self._files = contextlib.ExitStack()
        added = {prefix + name: replace(info, name=prefix + name) for name, info in second.tensors.items()}
        self.tensors: Mapping[str, TensorInfo] = {**first.tensors, **added}

    @property
    def path(self) -> Path | str:
        return self._first.path

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._first.metadata

    def pread(
        self, info: TensorInfo, start: int, nbytes: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        return self._source(info).pread(info, start, nbytes, out)

    def read(self, info: TensorInfo) -> NDArray[np.uint8]:
        return self._source(info).read(info)

    def fileno(self, info: TensorInfo) -> int | None:
        return self._source(info).fileno(info)

    def reopened(self) -> Self:
        again = type(self)(self._first.reopened(), self._second.reopened(), self._prefix)
        again._files.push(again._second)
        again._files.push(again._first)
        return again

    def origin(self, name: str) -> tuple[Path | str, str]:
        """Return the path of the file that a tensor of this name is in, or would be, and its name there."""
        second = name.startswith(self._prefix)
        return (self._second.path, name.removeprefix(self._prefix)) if second else (self._first.path, name)

    def _source(self, info: TensorInfo) -> Source:
        return self._second if info.name.startswith(self._prefix) else self._first

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._files.close()


def origin(source: Source, name: str) -> tuple[Path | str, str]:
    """Return the path of the file that a source has a tensor of this name from, and its name there: for messages."""
    return source.origin(name) if isinstance(source, Joined) else (source.path, name)
