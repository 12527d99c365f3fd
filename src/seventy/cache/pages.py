"""The memory of keys and values: pages of PAGE positions, each with room in every layer."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from seventy.cache.spec import CacheSpec, HiddenStates, Paged, Shared
from seventy.errors import SeventyError
from seventy.kernels.pages import BLOCK, KINDS, PAGE
from seventy.language import either
from seventy.machine.memory import allocate


def pages(positions: int) -> int:
    """Return the number of pages that `positions` positions need."""
    return -(-positions // PAGE)


class Pages:
    """The memory of `n_pages` pages for layers of these specifications; it is touched when first written.

    `kind` is how keys and values are stored, f16 or q8_0 (kernels/pages.py). Layers with windows have `n_slots` slots
    instead (cache/slots.py), by default as many as there are pages; recurrent layers have none (cache/states.py). A
    layer's pages lie together, one KV head after the other.

    Raises SeventyError for an unknown kind or one that does not fit these heads.
    """

    def __init__(self, specs: Sequence[CacheSpec], n_pages: int, kind: str, n_slots: int | None = None) -> None:
        check_kind(specs, kind)
        self.specs, self.n_pages, self.kind = tuple(specs), n_pages, kind
        self.paged = paged(specs)
        self.window = max((spec.window for spec in self.paged.values() if spec.window), default=None)
        self.n_slots = n_pages if n_slots is None or self.window is None else n_slots
        kept = {layer: spec for layer, spec in enumerate(specs) if isinstance(spec, HiddenStates)}
        # The layer whose pages hold what the model made of each position; None where nothing reads that.
        self.kept = next(iter(kept), None)
        sizes = {layer: self.pages_of(layer) * spec.page_bytes(kind) for layer, spec in self.paged.items()}
        sizes |= {layer: n_pages * spec.page_bytes() for layer, spec in kept.items()}
        self._starts = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
        self.memory = allocate(sum(sizes.values()))
        # [KV heads, pages or slots, bytes] of each layer.
        self._layers = {
            layer: self.memory[start : start + sizes[layer]].reshape(
                1 if layer in kept else self.paged[layer].kv_heads, self.pages_of(layer), -1
            )
            for layer, start in self._starts.items()
        }
        self.position_bytes = sum(spec.position_bytes(kind) for spec in self.paged.values())
        self.position_bytes += sum(spec.position_bytes() for spec in kept.values())
        # By window, what the layers that have it read of one position.
        self._bytes_by_window: dict[int | None, int] = {}
        for spec in (*(spec for spec in self.paged.values() if not spec.predicts), *shared_by(specs)):
            self._bytes_by_window[spec.window] = self._bytes_by_window.get(spec.window, 0) + spec.position_bytes(kind)

    def address(self, layer: int) -> int:
        """Return the address of a layer's pages."""
        return int(self.memory.ctypes.data) + self._starts[layer]

    def pages_of(self, layer: int) -> int:
        """Return how many pages, or slots, a layer has."""
        return self.n_slots if self._has_window(layer) else self.n_pages

    def _has_window(self, layer: int) -> bool:
        return layer in self.paged and self.paged[layer].window is not None

    def layer(self, layer: int) -> NDArray[np.uint8]:
        """Return a layer's pages or slots, [KV heads, pages, bytes]."""
        return self._layers[layer]

    def seen_bytes(self, start: int, end: int) -> int:
        """Return how many bytes the positions from `start` to `end` - 1 of a sequence see in all layers."""
        return sum(
            nbytes * (end if window is None else end - max(0, start + 1 - window))
            for window, nbytes in self._bytes_by_window.items()
        )

    def first_seen(self, length: int) -> int:
        """Return the first page that the position after so many sees in layers with windows."""
        return 0 if self.window is None else max(0, length + 1 - self.window) // PAGE

    def copy(self, source: int, target: int, slots: tuple[int, int]) -> None:
        """Copy a page to another in every layer; `slots` are theirs."""
        for layer in self._layers:
            here, there = slots if self._has_window(layer) else (source, target)
            self._layers[layer][:, there] = self._layers[layer][:, here]

    def views(self, page: int, slot: int) -> list[NDArray[np.uint8]]:
        """Return what a page holds: a view [KV heads, bytes] of each layer; of those with windows if it has a slot."""
        numbers = ((pages, slot if self._has_window(layer) else page) for layer, pages in self._layers.items())
        return [pages[:, number] for pages, number in numbers if number >= 0]


def paged(specs: Sequence[CacheSpec]) -> dict[int, Paged]:
    """Return the specifications of the layers that keep pages."""
    return {layer: spec for layer, spec in enumerate(specs) if isinstance(spec, Paged)}


def shared_by(specs: Sequence[CacheSpec]) -> list[Paged]:
    """Return the specifications that layers without keys and values of their own see, once for each of those layers."""
    sources = [specs[spec.layer] for spec in specs if isinstance(spec, Shared)]
    return [spec for spec in sources if isinstance(spec, Paged)]


def check_kind(specs: Sequence[CacheSpec], kind: str) -> None:
    """Raise SeventyError where layers of these specifications cannot be kept as `kind`."""
    if kind not in KINDS:
        raise SeventyError("the KV cache can be kept as {kinds}, not as {kind!r}", kinds=either(KINDS), kind=kind)
    wrong = next((dim for spec in paged(specs).values() for dim in (spec.key_dim, spec.value_dim) if dim % BLOCK), None)
    if kind == "q8_0" and wrong:
        raise SeventyError(
            "this model's heads have {wrong} elements, and a KV cache as q8_0 needs a multiple of {block}; keep it "
            "as f16",
            wrong=wrong, block=BLOCK,
        )
