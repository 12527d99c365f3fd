"""What a layer remembers of a text, said by its architecture."""

from dataclasses import dataclass

from seventy.kernels.pages import PAGE, Layout


@dataclass(frozen=True, slots=True)
class Paged:
    """A key of `key_dim` and a value of `value_dim` elements for each position and each of `kv_heads`, in pages.

    With a `window`, a position sees itself and the `window` - 1 before it only.
    """

    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None

    def layout(self, kind: str) -> Layout:
        """How a page of one KV head lies in memory where elements are kept as `kind` (kernels/pages.py)."""
        return Layout(kind, self.key_dim, self.value_dim)

    def page_bytes(self, kind: str) -> int:
        """Bytes of a page of all the layer's KV heads."""
        return self.kv_heads * self.layout(kind).nbytes

    def position_bytes(self, kind: str) -> int:
        """Bytes that one position takes in this layer."""
        return self.page_bytes(kind) // PAGE


CacheSpec = Paged
