"""Where a model's tensors come from: what `gguf.file.GGUF` offers, and whatever else offers the same."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from seventy.gguf.tensors import TensorInfo


class Source(Protocol):
    """Metadata as a GGUF file has it, and tensors by name; open as a context."""

    @property
    def path(self) -> Path | str:
        """What it is called in messages."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def pread(
        self, info: TensorInfo, start: int, nbytes: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """`nbytes` bytes of a tensor from its byte `start` on, into `out` when given; from several threads at once."""
        ...

    def read(self, info: TensorInfo) -> NDArray[np.uint8]:
        """A tensor's bytes."""
        ...

    def fileno(self, info: TensorInfo) -> int | None:
        """The file the tensor lies in, or None where it is in none."""
        ...

    def reopened(self) -> Self:
        """The same tensors, open when these are closed: a context of its own."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
