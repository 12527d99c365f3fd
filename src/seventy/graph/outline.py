"""What an architecture asks of its weights, without any: the names and shapes of a model's tensors."""

from collections import defaultdict
from collections.abc import Callable

from seventy.gguf.source import Source
from seventy.gguf.tensors import TensorInfo
from seventy.graph.weights import Weights


class Outline(Weights):
    """Weights without memory, for a program that is written and never run; `tensors` are those it asked for.

    `describe` says what stands under a name that must have this shape, `present` whether a tensor is there that may
    be lacking. Vectors are read from `source`, which needs to list none.
    """

    def __init__(
        self, source: Source, describe: Callable[[str, tuple[int, ...]], TensorInfo], present: Callable[[str], bool]
    ) -> None:
        super().__init__(source)
        self._describe, self._present = describe, present
        self._places = defaultdict(int)
        self.tensors: dict[str, TensorInfo] = {}

    def has(self, name: str) -> bool:
        return self._present(name)

    def _info(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        self.tensors[name] = info = self._describe(name, shape)
        return info
