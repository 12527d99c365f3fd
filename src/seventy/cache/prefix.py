"""The keys and values of what has been read, in pages that sequences share by prefix.

A full page never changes, so that every sequence which begins with the same tokens can read it. Pages hang in a tree:
a page's place is the tokens it holds after those of the pages before it. A page nobody reads stays until its room
is wanted; the one that was let go first goes first. Whoever reads a page also reads those before it and lets them go
after it, so that the first to go never has pages behind it.
"""

from collections import OrderedDict
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.kernels.pages import PAGE, Layout
from seventy.machine.memory import allocate


@dataclass(slots=True, eq=False)
class _Node:
    """A page in the tree: full, or the last one of a text that ended (then idle and without children)."""

    parent: "_Node | None"
    tokens: tuple[int, ...]
    page: int
    users: int = 0
    children: dict[tuple[int, ...], "_Node"] = field(default_factory=dict)


class KVCache:
    """`n_pages` pages of PAGE positions for every layer and KV head; memory is touched when it is first written.

    `kind` is how keys and values are kept: f16 or q8_0 (kernels/pages.py). For one thread at a time, as the steps that
    write it.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, n_pages: int, kind: str) -> None:
        self.n_pages, self.kind = n_pages, kind
        page_bytes = Layout(kind, head_dim).nbytes
        self.layer_bytes = kv_heads * n_pages * page_bytes
        self.position_bytes = layers * kv_heads * page_bytes // PAGE
        self.memory = allocate(layers * self.layer_bytes)
        self._pages = self.memory[: layers * self.layer_bytes].reshape(layers * kv_heads, n_pages, -1)
        self._free = list(range(n_pages))[::-1]
        self._root = _Node(None, (), -1, users=1)
        self._idle: OrderedDict[_Node, None] = OrderedDict()

    @staticmethod
    def nbytes(layers: int, kv_heads: int, head_dim: int, positions: int, kind: str) -> int:
        """Memory of a cache for so many positions."""
        return layers * kv_heads * pages(positions) * Layout(kind, head_dim).nbytes

    def layer(self, index: int) -> int:
        """The address of a layer's pages."""
        return int(self.memory.ctypes.data) + index * self.layer_bytes

    @property
    def free_pages(self) -> int:
        """Pages that can be had: those nobody uses, with something in them or not."""
        return len(self._free) + len(self._idle)

    @property
    def idle_pages(self) -> int:
        """Pages nobody uses now, kept for a text that begins as theirs did."""
        return len(self._idle)

    def forget(self) -> None:
        """Empties every idle page."""
        while self._idle:
            self._free.append(self._evict())

    # What sequences use

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if not self._idle:
            raise SeventyError(f"the KV cache is full: all {self.n_pages * PAGE} positions are in use")
        return self._evict()

    def _evict(self) -> int:
        node, _ = self._idle.popitem(last=False)
        assert node.parent is not None and not node.children, "an idle page with pages behind it"
        del node.parent.children[node.tokens]
        return node.page

    def _give_back(self, page: int) -> None:
        self._free.append(page)

    def _hold(self, node: _Node) -> None:
        node.users += 1
        self._idle.pop(node, None)

    def _let_go(self, node: _Node) -> None:
        node.users -= 1
        if not node.users:
            self._idle[node] = None

    def _copy(self, source: int, target: int) -> None:
        self._pages[:, target] = self._pages[:, source]


def pages(positions: int) -> int:
    """Pages that so many positions need."""
    return -(-positions // PAGE)


class Sequence:
    """A text in the cache: `tokens` are what is written, `length` how many, the table says in which pages."""

    def __init__(self, cache: KVCache, most: int) -> None:
        """`most` is the largest number of positions it may come to have."""
        self._cache = cache
        self._table: NDArray[np.int32] = np.zeros(pages(most), np.int32)
        # The first pages are in the tree, those after them are this sequence's alone.
        self._shared: list[_Node] = []
        self._owned = 0
        self.most = most
        self.tokens: list[int] = []

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def table_address(self) -> int:
        return int(self._table.ctypes.data)

    def missing_pages(self, length: int) -> int:
        """Pages to be taken before positions up to `length` can be written."""
        return max(0, pages(length) - len(self._shared) - self._owned)

    def open(self, tokens: Tokens[int]) -> int:
        """Begins anew with as many of these tokens as the cache still holds; how many that are."""
        self.close()
        cache, node, at = self._cache, self._cache._root, 0
        while len(key := tuple(tokens[at : at + PAGE])) == PAGE and (child := node.children.get(key)):
            cache._hold(child)
            self._table[len(self._shared)] = child.page
            self._shared.append(child)
            node, at = child, at + PAGE
        self.tokens = list(tokens[:at])
        self._open_part(node, key)
        return self.length

    def _open_part(self, node: _Node, wanted: tuple[int, ...]) -> None:
        """Takes over the beginning of a page whose tokens begin as those wanted."""
        cache = self._cache
        common, child = max(
            ((_common(child.tokens, wanted), child) for child in node.children.values()),
            key=lambda found: found[0],
            default=(0, None),
        )
        if child is None or not common:
            return
        if common == len(child.tokens):
            # The end of a text that now goes on: nobody else reads it.
            del node.children[child.tokens], cache._idle[child]
            page = child.page
        else:
            cache._hold(child)
            page = cache._take() if cache.free_pages else -1
            if page >= 0:
                cache._copy(child.page, page)
            cache._let_go(child)
            if page < 0:
                return
        self._table[len(self._shared)] = page
        self._owned = 1
        self.tokens += wanted[:common]

    def reserve(self, length: int) -> None:
        """Makes room for positions 0 to length - 1. Raises SeventyError when the cache is full."""
        assert length <= self.most, f"{length} positions in a sequence of {self.most}"
        for _ in range(self.missing_pages(length)):
            self._table[len(self._shared) + self._owned] = self._cache._take()
            self._owned += 1

    def extend(self, tokens: Tokens[int]) -> None:
        """Says that these tokens were written after those before; full pages are shared from now on."""
        self.tokens.extend(tokens)
        cache = self._cache
        while (len(self._shared) + 1) * PAGE <= self.length:
            at = len(self._shared)
            key = tuple(self.tokens[at * PAGE : (at + 1) * PAGE])
            parent = self._shared[-1] if self._shared else cache._root
            node = parent.children.get(key)
            if node is None:
                node = parent.children[key] = _Node(parent, key, int(self._table[at]), users=1)
            else:
                # Another has written the same meanwhile: bit by bit the same, one of the two is enough.
                cache._hold(node)
                cache._give_back(int(self._table[at]))
                self._table[at] = node.page
            self._shared.append(node)
            self._owned -= 1

    def truncate(self, length: int) -> None:
        """Forgets every position from `length` on, and the room reserved for more."""
        cache, length = self._cache, min(length, self.length)
        while len(self._shared) + self._owned > max(pages(length), len(self._shared)):
            self._drop_owned()
        while len(self._shared) > pages(length):
            cache._let_go(self._shared.pop())
        if len(self._shared) * PAGE > length:
            # The last page will be written again: nobody else may read it.
            node = self._shared.pop()
            if node.users > 1 or node.children:
                page = cache._take()
                cache._copy(node.page, page)
                cache._let_go(node)
                self._table[len(self._shared)] = page
            else:
                assert node.parent is not None
                del node.parent.children[node.tokens]
            self._owned = 1
        del self.tokens[length:]

    def close(self) -> None:
        """Lets everything go; what was written stays in the cache while there is room."""
        cache, rest = self._cache, tuple(self.tokens[len(self._shared) * PAGE :])
        while self._owned > bool(rest):
            self._drop_owned()
        if self._owned:
            parent = self._shared[-1] if self._shared else cache._root
            if any(tokens[: len(rest)] == rest for tokens in parent.children):
                self._drop_owned()
            else:
                node = parent.children[rest] = _Node(parent, rest, int(self._table[len(self._shared)]))
                cache._idle[node] = None
                self._owned = 0
        while self._shared:
            cache._let_go(self._shared.pop())
        self.tokens = []

    def _drop_owned(self) -> None:
        self._owned -= 1
        self._cache._give_back(int(self._table[len(self._shared) + self._owned]))


def _common(a: Tokens[int], b: Tokens[int]) -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
