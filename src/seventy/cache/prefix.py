"""Sequences that share what they begin with: a tree of pages, by the tokens they hold.

A full page never changes, so that every sequence which begins with the same tokens can read it. A page's place in the
tree is the tokens it holds after those of the pages before it. A page that no sequence uses stays until its room is
wanted; the one released first is evicted first. A sequence releases a page before those it follows, so that the first
to be evicted never has pages behind it.

What a step writes is not part of a sequence until it is committed: a step that was aborted or gave no numbers leaves
nothing behind, and going back takes no page.

In layers with windows a page's room is a slot (cache/slots.py). A sequence lets go of those behind its window, but of
the window before the end of its prompt, where the next text of a conversation may branch off, only at its own end. A
match ends where every layer can go on.

Recurrent layers go on from a state only (cache/states.py). The tree remembers some: at the last page before the end of
a prompt, for templates drop what an answer thought, so that the next text of a conversation branches off there; where a
text was found to branch off; and at the end of a text. The one not used for longest is forgotten first, and those of a
page go when it is evicted.
"""

import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seventy.cache.pages import Pages, pages
from seventy.cache.slots import Slots
from seventy.cache.states import EMPTY, States
from seventy.cache.store import PageStore, digest
from seventy.errors import SeventyError
from seventy.kernels.pages import PAGE
from seventy.kernels.short_convolution import MAX_PENDING

# With a store: how long a page is idle before it is written, so that a process that is killed loses little; and after
# how long it is tried again where the disk is behind or fails.
IDLE_SECONDS, RETRY_SECONDS = 2.0, 0.5


@dataclass(slots=True, eq=False)
class Node:
    """A page in the tree: full, or the last one of a text that ended (then idle and without children)."""

    parent: "Node | None"
    tokens: tuple[int, ...]
    page: int
    users: int = 0
    children: dict[tuple[int, ...], "Node"] = field(default_factory=dict)
    # The remembered states, by the tokens after this page that they are of, too: less than a page of them. How many of
    # these tokens are pending in each.
    states: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)
    # Names all tokens up to its end, and the model (cache/store.py); empty where nothing is kept on disk.
    name: bytes = b""
    # Whether it is on disk or on its way there, with the state after it.
    saved: bool = False

    def __post_init__(self) -> None:
        if self.parent is not None and self.parent.name:
            self.name = name_after(self.parent.name, self.tokens)

    def path(self) -> "Iterator[Node]":
        """Yield this page and those before it, up to the first."""
        node: Node | None = self
        while node is not None and node.parent is not None:
            yield node
            node = node.parent


def name_after(before: bytes, tokens: Tokens[int]) -> bytes:
    """Return the name (a hash) of a page with these tokens that follows the page named `before`."""
    return digest(before, array("i", tokens).tobytes())


class PrefixCache:
    """Assigns the pages of `memory` and the recurrent `states` to sequences, which share common prefixes.

    For one thread at a time, the one that runs steps.
    """

    def __init__(self, memory: Pages, states: States | None = None) -> None:
        self.memory, self.states = memory, states or States((), 0)
        self.slots = Slots(memory.n_pages, memory.n_slots)
        self._free = list(range(memory.n_pages))[::-1]
        self.root = Node(None, (), -1, users=1)
        self._idle: OrderedDict[Node, None] = OrderedDict()
        # Full pages that were idle and are not on disk, and since when, the longest first.
        self._unsaved: OrderedDict[Node, float] = OrderedDict()
        # Where states are remembered, the one not used for longest first.
        self._remembered: OrderedDict[tuple[Node, tuple[int, ...]], None] = OrderedDict()
        self.store: PageStore | None = None
        # Of each page, how many of its positions the model's block of multi-token prediction has read.
        self.predicted: NDArray[np.int32] = np.zeros(memory.n_pages, np.int32)

    @property
    def recurrent(self) -> bool:
        """Whether a sequence has a state."""
        return self.states.nbytes > 0

    @property
    def remembers(self) -> bool:
        """Whether there are states that a sequence may have in place of the tree."""
        return bool(self._remembered)

    @property
    def n_pages(self) -> int:
        return self.memory.n_pages

    @property
    def free_pages(self) -> int:
        """Pages that can be had, with slots: those no sequence uses, with something in them or not."""
        return min(len(self._free) + len(self._idle), self.slots.free)

    @property
    def idle_pages(self) -> int:
        """Pages no sequence uses now, kept for a text that begins as theirs did."""
        return len(self._idle)

    def has_room(self, length: int, spare: int) -> bool:
        """Return whether a text of this length fits beside `spare` others, with a free page left for each of them."""
        # In a step each of them may read a state and write another.
        if self.recurrent and self.states.n_states < 2 * (1 + spare):
            return False
        slots = min(pages(length), 2 * (pages(length) - self.memory.first_seen(length)))
        return len(self._free) + len(self._idle) >= pages(length) + spare and self.slots.free >= slots + spare

    def match(self, tokens: Tokens[int]) -> list[Node]:
        """Return the full pages that begin as these tokens do."""
        node, found = self.root, list[Node]()
        while len(key := tuple(tokens[len(found) * PAGE : (len(found) + 1) * PAGE])) == PAGE:
            if key not in node.children:
                break
            node = node.children[key]
            found.append(node)
        return found

    def forget(self) -> None:
        """Empty every idle page, and remember no state."""
        while self._remembered:
            self._forget_state(*next(iter(self._remembered)))
        while self._idle:
            self._free.append(self._evict())

    # What is kept on disk

    def attach(self, store: PageStore) -> None:
        """Write what is evicted or idle from now on to this store, where texts find it again (cache/fetch.py)."""
        self.forget()
        self.store, self.root.name = store, store.key

    def close(self, seconds: float = 0.0) -> None:
        """Write the idle pages and states that are not on disk yet, the last used first, and end the store's thread.

        What would take longer than so many `seconds` is lost. No sequence may be open; twice is once.
        """
        if self.store is None:
            return
        until = time.monotonic() + seconds
        for node in reversed(self._idle):
            if time.monotonic() < until:
                self._save(node, until)
        # What texts begin with must stay there longer than how they go on.
        self.store.drain(until - time.monotonic())
        self.store.touch(file for node in self._idle if len(node.tokens) == PAGE for file in files_of(node.name))
        self.store.close()
        self.store = None

    def _save(self, node: Node, until: float = 0.0) -> bool:
        """Let a full page be written, with the state after it where there is one; whether both are or will be there."""
        if self.store is None or len(node.tokens) < PAGE:
            return False
        slot = int(self.slots.of_page[node.page])
        saved = self.store.put(file_of_page(node.name, slot >= 0), self.memory.views(node.page, slot), until)
        return self._save_state(node, until) and saved

    def _save_state(self, node: Node, until: float = 0.0) -> bool:
        if self.store is None or () not in node.states or node is self.root:
            return True
        state, pending = node.states[()]
        count = np.array([pending], np.int64).view(np.uint8)
        return self.store.put(file_of_state(node.name), [self.states.view(state), count], until)

    def write_idle(self) -> float | None:
        """Copy a page that nobody has used for IDLE_SECONDS, or one before it, for the store to write.

        Return after how many seconds there may be another; None where nothing waits.
        """
        if self.store is None or not self._unsaved:
            return None
        node = next(iter(self._unsaved))
        if (left := self._unsaved[node] + IDLE_SECONDS - time.monotonic()) > 0:
            return left
        first = node
        while first.parent and first.parent is not self.root and not first.parent.saved:
            first = first.parent
        if not self._save(first):
            return RETRY_SECONDS
        first.saved = True
        self._unsaved.pop(first, None)
        if first is node:
            # What texts begin with must stay on disk longer than how they go on.
            self.store.touch_after([file for each in node.path() for file in files_of(each.name)])
        return 0.0

    # What sequences use

    def take_page(self) -> int:
        """Return a page with a slot for one sequence, evicting an idle one. Raises SeventyError when there is none."""
        if not self.free_pages:
            raise SeventyError("the KV cache is full: all {n_pages} positions are in use", n_pages=self.n_pages * PAGE)
        page = self._free.pop() if self._free else self._evict()
        self.slots.take(page)
        self.predicted[page] = 0
        return page

    def _evict(self) -> int:
        node, _ = self._idle.popitem(last=False)
        self._unsaved.pop(node, None)
        assert node.parent is not None and not node.children, "an idle page with pages behind it"
        self._save(node)
        parent, children = node.parent, node.parent.children
        del children[node.tokens]
        for rest in list(node.states):
            self._forget_state(node, rest)
        for rest in [rest for rest in parent.states if rest and not _begins(children, rest)]:
            self._forget_state(parent, rest)
        self.slots.drop(node.page)
        return node.page

    def give_back(self, page: int) -> None:
        """Free a page that is not in the tree and whose slot nobody needs."""
        self.slots.drop(page)
        self._free.append(page)

    def take_state(self) -> int:
        """Return a state for one sequence, forgetting one. Raises SeventyError when all are in use."""
        while not self.states.unused:
            if not self._remembered:
                raise SeventyError(
                    "all {n_states} states of the model's recurrent layers are in use",
                    n_states=self.states.n_states,
                )
            self._forget_state(*next(iter(self._remembered)))
        return self.states.take()

    def remember_state(self, node: Node, rest: tuple[int, ...], state: int, pending: int) -> None:
        """Keep the state after a page and the tokens `rest` behind it, `pending` of which are pending in it."""
        if rest not in node.states:
            node.saved = node.saved and bool(rest)
            node.states[rest] = state, pending
            self.states.remember(state)
        self._remembered[node, rest] = None
        self._remembered.move_to_end((node, rest))

    def _forget_state(self, node: Node, rest: tuple[int, ...]) -> None:
        if not rest:
            self._save_state(node)
        del self._remembered[node, rest]
        self.states.forget(node.states.pop(rest)[0])

    def hold(self, node: Node) -> None:
        """Count one more sequence that uses the page."""
        node.users += 1
        self._idle.pop(node, None)

    def release(self, node: Node) -> None:
        """Count one sequence less that uses the page."""
        node.users -= 1
        if not node.users:
            self._idle[node] = None
            if self.store is not None and not node.saved and len(node.tokens) == PAGE:
                self._unsaved.setdefault(node, time.monotonic())


class Sequence:
    """A text in the cache: `tokens` are those committed, `pages` the numbers of the pages that hold them."""

    def __init__(self, cache: PrefixCache, max_length: int) -> None:
        """`max_length` is the largest number of positions it may come to have."""
        self._cache = cache
        self._table: NDArray[np.int32] = np.zeros(pages(max_length), np.int32)
        # The first pages are in the tree, those after them are this sequence's alone.
        self._shared: list[Node] = []
        self._owned = 0
        # Which of the pages it needs the slots of: those from _first on, and those before that are _kept.
        self._needed: set[int] = set()
        self._first, self._kept = 0, range(0)
        # The state of `tokens`, how many of these are pending in it, the state that the next step writes, how many
        # tokens there are after it at most, how many of them drafted; after how many tokens it is to be remembered.
        self._state, self._pending, self._next_state, self._reserved, self._drafted = EMPTY, 0, EMPTY, 0, 0
        self._marks: list[int] = []
        self.max_length = max_length
        self.tokens: list[int] = []

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def pages(self) -> NDArray[np.int32]:
        """The block table: the page of positions 0 to PAGE - 1 first. A view that later calls change."""
        return self._table[: len(self._shared) + self._owned]

    @property
    def slots(self) -> NDArray[np.int32]:
        """The block table of layers with windows; -1 for pages that no position to come sees."""
        return self._cache.slots.of_page[self.pages]

    @property
    def states(self) -> tuple[int, int, int, int]:
        """The recurrent states a step reads and writes, and how many tokens of each are pending or drafted."""
        return self._state, self._next_state, self._pending, self._drafted

    def missing_pages(self, length: int) -> int:
        """Return how many pages must be taken before positions up to `length` can be written."""
        return max(0, pages(length) - len(self._shared) - self._owned)

    def open(self, tokens: Tokens[int]) -> int:
        """Reset to the longest cached prefix of `tokens` from which every layer can go on; return its length."""
        self.close()
        cache, found = self._cache, self._cache.match(tokens)
        key = tuple(tokens[len(found) * PAGE : (len(found) + 1) * PAGE])
        if cache.recurrent:
            self._open_at_state(tokens, found)
            # Where this text leaves those before it, and where the next one may leave this one.
            for position in (len(found) * PAGE, (len(tokens) - PAGE) // PAGE * PAGE):
                self.mark(position)
        else:
            whole = self._whole(found)
            self._open_pages(found[:whole])
            if whole == len(found):
                self._open_part(self._shared[-1] if self._shared else cache.root, key)
        # The last words of a prompt, which begin the answer, may be missing in the next text: up to PAGE tokens.
        self._kept = range(cache.memory.first_seen(len(tokens) - 2 * PAGE), pages(len(tokens)))
        return self.length

    def _open_pages(self, nodes: list[Node]) -> None:
        """Begin with these pages."""
        for node in nodes:
            self._cache.hold(node)
            self._table[len(self._shared)] = node.page
            self._shared.append(node)
            self.tokens += node.tokens
        self._first = self._cache.memory.first_seen(self.length)
        for index in range(self._first, len(nodes)):
            self._hold_slot(index)

    def _open_at_state(self, tokens: Tokens[int], found: list[Node]) -> None:
        """Begin as the longest remembered state does; `found` are the pages that begin as the tokens do."""
        cache = self._cache
        for depth in range(len(found), -1, -1):
            node, wanted = found[depth - 1] if depth else cache.root, tuple(tokens[depth * PAGE : (depth + 1) * PAGE])
            for rest in sorted(node.states, key=len, reverse=True):
                if wanted[: len(rest)] != rest or self._whole(found[:depth]) < depth:
                    continue
                self._open_pages(found[:depth])
                self._open_part(node, rest)
                if self.length == depth * PAGE + len(rest):
                    self._state, self._pending = node.states[rest]
                    cache.states.hold(self._state)
                    cache.remember_state(node, rest, self._state, self._pending)
                    return
                self.close()

    def _whole(self, nodes: list[Node]) -> int:
        """After how many of these pages every layer can go on: those that windows see have slots."""
        cache, run, whole = self._cache, 0, 0
        for depth, node in enumerate(nodes, 1):
            run = run + 1 if cache.slots.has(node.page) else 0
            if run >= depth - cache.memory.first_seen(depth * PAGE):
                whole = depth
        return whole

    def _open_part(self, node: Node, wanted: tuple[int, ...]) -> None:
        """Take over the beginning of a page whose tokens begin as those wanted."""
        cache = self._cache
        common, child = max(
            ((_common(child.tokens, wanted), child) for child in node.children.values()),
            key=lambda found: found[0],
            default=(0, None),
        )
        if child is None or not common or not cache.slots.has(child.page):
            return
        if common == len(child.tokens):
            # The end of a text that now goes on: no other sequence reads it.
            del node.children[child.tokens], cache._idle[child]
            page = child.page
            cache.slots.hold(page)
        else:
            cache.hold(child)
            cache.slots.hold(child.page)
            page = cache.take_page() if cache.free_pages else -1
            if page >= 0:
                slots = cache.slots.of_page[[child.page, page]].tolist()
                cache.memory.copy(child.page, page, (slots[0], slots[1]))
                cache.predicted[page] = min(cache.predicted[child.page], common)
            cache.slots.release(child.page)
            cache.release(child)
            if page < 0:
                return
        self._table[len(self._shared)] = page
        self._needed.add(len(self._shared))
        self._owned = 1
        self.tokens += wanted[:common]

    def reserve(self, length: int, drafted: int = 0) -> None:
        """Make room for positions 0 to length - 1, the last `drafted` of which may turn out wrong.

        Raises SeventyError when the cache is full.
        """
        assert length <= self.max_length, f"{length} positions in a sequence of {self.max_length}"
        # A state has room for no more.
        assert not self._cache.recurrent or drafted <= MAX_PENDING, f"{drafted} drafted rows of a recurrent layer"
        for _ in range(self.missing_pages(length)):
            self._table[len(self._shared) + self._owned] = self._cache.take_page()
            self._needed.add(len(self._shared) + self._owned)
            self._owned += 1
        if self._cache.recurrent and self._next_state == EMPTY:
            self._next_state = self._cache.take_state()
        self._reserved, self._drafted = length, drafted

    def mark(self, position: int) -> None:
        """Let the state after so many tokens, whole pages of them, be remembered, unless they are read already."""
        if self._cache.recurrent and position > self.length and position not in self._marks:
            self._marks = sorted([*self._marks, position])

    def until_mark(self, n: int) -> int:
        """Return how many of the next `n` tokens a step may take so as to end where the state is to be remembered."""
        return min(n, self._marks[0] - self.length) if self._marks else n

    def commit(self, tokens: Tokens[int]) -> None:
        """Append tokens that a step has written and that are right; full pages are shared from now on.

        Of recurrent layers, these must be all that room was made for, but for drafted ones.
        """
        self.tokens.extend(tokens)
        cache = self._cache
        wrong = self._reserved - self.length
        assert not cache.recurrent or 0 <= wrong <= self._drafted, f"{self.length} of {self._reserved} positions"
        while (len(self._shared) + 1) * PAGE <= self.length:
            at = len(self._shared)
            key = tuple(self.tokens[at * PAGE : (at + 1) * PAGE])
            parent = self._shared[-1] if self._shared else cache.root
            node = parent.children.get(key)
            if node is None:
                node = parent.children[key] = Node(parent, key, int(self._table[at]), users=1)
            else:
                # Another sequence has written the same meanwhile, the same to the bit: one of the two is enough.
                cache.hold(node)
                own = int(self._table[at])
                if cache.slots.has(node.page):
                    cache.slots.hold(node.page)
                    cache.slots.release(own)
                else:
                    cache.slots.move(own, node.page)
                cache.give_back(own)
                self._table[at] = node.page
            self._shared.append(node)
            self._owned -= 1
        first = cache.memory.first_seen(self.length)
        for index in range(self._first, first):
            if index not in self._kept:
                self._release_slot(index)
        self._first = first
        if cache.recurrent:
            cache.states.release(self._state)
            self._state, self._next_state, self._pending = self._next_state, EMPTY, self._drafted - wrong
            while self._marks and self._marks[0] <= self.length:
                if self._marks.pop(0) == self.length:
                    cache.remember_state(self._shared[-1], (), self._state, self._pending)

    @property
    def predicted(self) -> int:
        """The number of positions, from the first on, that the block of multi-token prediction has read."""
        read = self._cache.predicted[self.pages]
        whole = next(iter(np.flatnonzero(read < PAGE).tolist()), len(read))
        return whole * PAGE + (int(read[whole]) if whole < len(read) else 0)

    def predict(self, start: int, end: int) -> None:
        """Record that the block of multi-token prediction has read the committed positions `start` to `end` - 1."""
        assert end <= self.length, f"{end} of {self.length} positions"
        for index in range(start // PAGE, pages(end)):
            page = self._table[index]
            self._cache.predicted[page] = max(self._cache.predicted[page], min(PAGE, end - index * PAGE))

    def _hold_slot(self, index: int) -> None:
        self._cache.slots.hold(int(self._table[index]))
        self._needed.add(index)

    def _release_slot(self, index: int) -> None:
        self._needed.remove(index)
        self._cache.slots.release(int(self._table[index]))

    def close(self) -> None:
        """Release every page; what was committed stays in the cache while there is room."""
        cache, rest = self._cache, tuple(self.tokens[len(self._shared) * PAGE :])
        for index in sorted(self._needed):
            self._release_slot(index)
        while self._owned > bool(rest):
            self._drop_owned()
        if self._owned:
            parent = self._shared[-1] if self._shared else cache.root
            if _begins(parent.children, rest):
                self._drop_owned()
            else:
                node = parent.children[rest] = Node(parent, rest, int(self._table[len(self._shared)]))
                cache._idle[node] = None
                self._owned = 0
        if self._state != EMPTY:
            cache.remember_state(self._shared[-1] if self._shared else cache.root, rest, self._state, self._pending)
        for state in (self._state, self._next_state):
            cache.states.release(state)
        self._state, self._pending, self._next_state, self._marks = EMPTY, 0, EMPTY, []
        while self._shared:
            cache.release(self._shared.pop())
        self.tokens, self._first, self._kept = [], 0, range(0)

    def _drop_owned(self) -> None:
        self._owned -= 1
        self._cache.give_back(int(self._table[len(self._shared) + self._owned]))


def file_of_page(name: bytes, windows: bool) -> bytes:
    """Return the name of a page's file; pages with and without the layers that have windows are different files."""
    return digest(name, b"page" if windows else b"without windows")


def files_of(name: bytes) -> tuple[bytes, ...]:
    """Return the names of all files that a page may have."""
    return file_of_page(name, True), file_of_page(name, False), file_of_state(name)


def file_of_state(name: bytes) -> bytes:
    return digest(name, b"state")


def _begins(pages: Iterable[tuple[int, ...]], rest: tuple[int, ...]) -> bool:
    """Whether a page of these tokens begins so."""
    return any(tokens[: len(rest)] == rest for tokens in pages)


def _common(a: Tokens[int], b: Tokens[int]) -> int:
    """Return how many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
