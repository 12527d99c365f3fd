"""What an architecture asks of its weights, without any: the names and shapes of a model's tensors."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seventy.formats import PANEL
from seventy.gguf.source import Source
from seventy.gguf.tensors import TensorInfo
from seventy.graph.weights import Matrix, Weights, find


class Outline(Weights):
    """Weights without bytes, for a program that is written and never run; `tensors` are those it asked for.

    `describe` says what stands under a name that must have this shape, `present` whether a tensor is there that may
    be lacking. Vectors are ones.
    """

    def __init__(self, describe: Callable[[str, tuple[int, ...]], TensorInfo], present: Callable[[str], bool]) -> None:
        self._describe, self._present = describe, present
        self.nodes = ((),)
        self.tensors: dict[str, TensorInfo] = {}
        self._matrices: dict[str, Matrix] = {}
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._places = defaultdict(int)

    @classmethod
    def of(cls, source: Source) -> "Outline":
        """Of the tensors of a file, none of which is read."""
        return cls(lambda name, shape: find(source, name, shape), lambda name: name in source.tensors)

    def has(self, name: str) -> bool:
        return self._present(name)

    def _info(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        self.tensors[name] = info = self._describe(name, shape)
        return info

    def vector(self, name: str, length: int) -> NDArray[np.float32]:
        self._info(name, (length,))
        return np.ones(-(-length // PANEL) * PANEL, np.float32)
