"""The keys and values of what has been read, in pages that sequences own."""

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.kernels.pages import PAGE, Layout
from seventy.machine.memory import allocate


class KVCache:
    """`n_pages` pages of PAGE positions for every layer and KV head; memory is touched when it is first written.

    `kind` is how keys and values are kept: f16 or q8_0 (kernels/pages.py).
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, n_pages: int, kind: str) -> None:
        self.n_pages, self.kind = n_pages, kind
        page_bytes = Layout(kind, head_dim).nbytes
        self.layer_bytes = kv_heads * n_pages * page_bytes
        self.position_bytes = layers * kv_heads * page_bytes // PAGE
        self._memory = allocate(layers * self.layer_bytes)
        self._free = list(range(n_pages))[::-1]

    @staticmethod
    def nbytes(layers: int, kv_heads: int, head_dim: int, positions: int, kind: str) -> int:
        """Memory of a cache for so many positions."""
        return layers * kv_heads * pages(positions) * Layout(kind, head_dim).nbytes

    def layer(self, index: int) -> int:
        """The address of a layer's pages."""
        return int(self._memory.ctypes.data) + index * self.layer_bytes

    @property
    def free_pages(self) -> int:
        return len(self._free)

    def take(self) -> int:
        if not self._free:
            raise SeventyError(f"the KV cache is full: all {self.n_pages * PAGE} positions are in use")
        return self._free.pop()

    def give_back(self, page: int) -> None:
        self._free.append(page)


def pages(positions: int) -> int:
    """Pages that so many positions need."""
    return -(-positions // PAGE)


class Sequence:
    """A text in the cache: `length` positions of it are written, `table` says in which pages."""

    def __init__(self, cache: KVCache, most: int) -> None:
        """`most` is the largest number of positions it may come to have."""
        self._cache = cache
        self._table: NDArray[np.int32] = np.zeros(pages(most), np.int32)
        self._owned = 0
        self.most = most
        self.length = 0

    @property
    def table_address(self) -> int:
        return int(self._table.ctypes.data)

    def reserve(self, length: int) -> None:
        """Makes room for positions 0 to length - 1. Raises SeventyError when the cache is full."""
        assert length <= self.most, f"{length} positions in a sequence of {self.most}"
        while self._owned < pages(length):
            self._table[self._owned] = self._cache.take()
            self._owned += 1

    def truncate(self, length: int) -> None:
        """Forgets every position from `length` on."""
        self.length = min(self.length, length)
        while self._owned > pages(self.length):
            self._owned -= 1
            self._cache.give_back(int(self._table[self._owned]))
