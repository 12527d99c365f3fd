"""The memory of keys and values: pages of PAGE positions, each with room in every layer."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seventy.cache.spec import CacheSpec
from seventy.errors import SeventyError
from seventy.kernels.pages import BLOCK, KINDS, PAGE
from seventy.machine.memory import allocate


def pages(positions: int) -> int:
    """Return the number of pages that so many positions need."""
    return -(-positions // PAGE)


class Pages:
    """`n_pages` pages for layers of these specifications; memory is touched when it is first written.

    `kind` is how keys and values are kept, f16 or q8_0 (kernels/pages.py). A layer's pages lie together, one KV head
    after the other. Raises SeventyError for a kind that does not exist or that these heads cannot have.
    """

    def __init__(self, specs: Sequence[CacheSpec], n_pages: int, kind: str) -> None:
        check_kind(specs, kind)
        self.specs, self.n_pages, self.kind = tuple(specs), n_pages, kind
        sizes = [n_pages * spec.page_bytes(kind) for spec in specs]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.memory = allocate(sum(sizes))
        # [KV heads, pages, bytes] of each layer.
        self._layers = [
            self.memory[start : start + size].reshape(spec.kv_heads, n_pages, -1)
            for spec, start, size in zip(specs, self._starts, sizes, strict=True)
        ]
        self.position_bytes = sum(spec.position_bytes(kind) for spec in specs)

    def address(self, layer: int) -> int:
        """Return the address of a layer's pages."""
        return int(self.memory.ctypes.data) + self._starts[layer]

    def layer(self, layer: int) -> NDArray[np.uint8]:
        """Return a layer's pages, [KV heads, pages, bytes]."""
        return self._layers[layer]

    def seen_bytes(self, start: int, end: int) -> int:
        """Return how many bytes the positions from `start` to `end` - 1 of a sequence see in all layers."""
        return sum(spec.seen(start, end) * spec.position_bytes(self.kind) for spec in self.specs)

    def copy(self, source: int, target: int) -> None:
        """Copy a page in every layer."""
        for layer in self._layers:
            layer[:, target] = layer[:, source]


def check_kind(specs: Sequence[CacheSpec], kind: str) -> None:
    """Raise SeventyError where layers of these specifications cannot be kept as `kind`."""
    if kind not in KINDS:
        raise SeventyError(f"the KV cache can be kept as {' or '.join(KINDS)}, not as {kind!r}")
    wrong = next((dim for spec in specs for dim in (spec.key_dim, spec.value_dim) if dim % BLOCK), None)
    if kind == "q8_0" and wrong:
        raise SeventyError(
            f"this model's heads have {wrong} elements, and a KV cache as q8_0 needs a multiple of {BLOCK}; "
            f"keep it as f16"
        )
