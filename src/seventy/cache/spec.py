"""What a layer remembers of a text, said by its architecture."""

import math
from dataclasses import dataclass

from seventy.kernels.pages import PAGE, LatentLayout, Layout


@dataclass(frozen=True, slots=True)
class Paged:
    """A key of `key_dim` and a value of `value_dim` elements for each position and each of `kv_heads`, in pages.

    With a `window`, a position sees itself and the `window` - 1 before it only. With `values_in_keys` the first
    `value_dim` elements of the one key are the value, and are kept once. `predicts` says that it is of a block of
    multi-token prediction, which no step of the model reads.
    """

    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    values_in_keys: bool = False
    predicts: bool = False

    def __post_init__(self) -> None:
        assert not self.values_in_keys or (self.kv_heads == 1 and self.value_dim <= self.key_dim), str(self)

    def layout(self, kind: str) -> Layout | LatentLayout:
        """Return the memory layout of a page of one KV head with elements of this `kind` (kernels/pages.py)."""
        if self.values_in_keys:
            return LatentLayout(kind, self.key_dim)
        return Layout(kind, self.key_dim, self.value_dim)

    def page_bytes(self, kind: str) -> int:
        """Return the bytes of a page of all the layer's KV heads."""
        return self.kv_heads * self.layout(kind).nbytes

    def position_bytes(self, kind: str) -> int:
        """Return the bytes that one position takes in this layer."""
        return self.page_bytes(kind) // PAGE


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """The model's final hidden state at each position, `columns` numbers as f16 (kernels/hidden.py), in pages.

    A step writes them; a block of multi-token prediction reads them.
    """

    columns: int

    def page_bytes(self) -> int:
        return 2 * PAGE * self.columns

    def position_bytes(self) -> int:
        return 2 * self.columns


@dataclass(frozen=True, slots=True)
class Recurrent:
    """Arrays of f32 of these shapes for a whole text, whatever its length; each begins on a cache line.

    `log_bytes` of them are room for what drafted rows do, which is read and written only where there are some.
    """

    shapes: tuple[tuple[int, ...], ...]
    log_bytes: int = 0

    @property
    def starts(self) -> tuple[int, ...]:
        """The byte offset of each array, and last their total size."""
        sizes = [-(-4 * math.prod(shape) // 64) * 64 for shape in self.shapes]
        return tuple(sum(sizes[:i]) for i in range(len(sizes) + 1))

    @property
    def nbytes(self) -> int:
        return self.starts[-1]


@dataclass(frozen=True, slots=True)
class Shared:
    """The keys and values of another layer, which this one attends to; it has none of its own."""

    layer: int


CacheSpec = Paged | HiddenStates | Recurrent | Shared
