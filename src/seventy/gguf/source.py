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
        """The name of the source in messages."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def pread(
        self, info: TensorInfo, start: int, nbytes: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read `nbytes` bytes of a tensor from byte `start` on, into `out` if given. Threads may call it at once."""
        ...

    def read(self, info: TensorInfo) -> NDArray[np.uint8]:
        """Read a tensor's bytes."""
        ...

    def fileno(self, info: TensorInfo) -> int | None:
        """Return the descriptor of the file that holds the tensor, or None if none does."""
        ...

    def reopened(self) -> Self:
        """Open the same tensors once more, independently of this object."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
