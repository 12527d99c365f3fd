"""What a text begins with, read from disk while the cache goes on.

A `Fetch` is done in turns: what it asks of the tree by the cache's thread, what it asks of the disk by any other. Pages
that are being read belong to nobody else, and stand in the tree once they are whole; a text that is opened after that
(Sequence.open) finds them there.
"""

from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

import numpy as np

from seventy.cache.prefix import Node, PrefixCache, file_of_page, file_of_state, files_of, name_after
from seventy.cache.store import Bytes
from seventy.kernels.pages import PAGE


@dataclass(slots=True)
class _Page:
    """A page that was taken for the tokens `key`; whether it could be read, and with the layers that have windows."""

    key: tuple[int, ...]
    name: bytes
    number: int
    slot: int
    read: bool = False
    windows: bool = True


class Fetch:
    """The pages of a text that the disk has and the cache lacks. `stop` ends it after the page that is being read."""

    def __init__(self, cache: PrefixCache, tokens: Tokens[int]) -> None:
        """By the cache's thread, as `next`."""
        assert cache.store is not None, "a cache without a store"
        self._cache, self._store, self._tokens = cache, cache.store, tokens
        # The pages before those to be read, held so that room is made of others.
        self._held = cache.match(tokens)
        for node in self._held:
            cache.hold(node)
        self._remembered = [() in node.states for node in self._held]
        self._keys: list[tuple[int, ...]] = []
        self._pages: list[_Page] = []
        self._state: tuple[bytes, list[Bytes]] | None = None
        self._next: Callable[[int], Callable[[], None] | None] = lambda _: self._look
        self._stopped = self._found = False

    @classmethod
    def of(cls, cache: PrefixCache, tokens: Tokens[int]) -> "Fetch | None":
        """Return what there may be to read, which costs a look or two at the disk; None where there is nothing."""
        store, found = cache.store, cache.match(tokens)
        if store is None:
            return None
        key = tuple(tokens[len(found) * PAGE : (len(found) + 1) * PAGE])
        name = name_after((found or [cache.root])[-1].name, key)
        if len(key) == PAGE and any(store.has(file_of_page(name, windows)) for windows in (True, False)):
            return cls(cache, tokens)
        if cache.recurrent:
            for node in reversed(found):
                if () in node.states:
                    break
                if store.has(file_of_state(node.name)):
                    return cls(cache, tokens)
        return None

    def next(self, spare: int = 0) -> Callable[[], None] | None:
        """Return what is to be done of it by any thread before this is called again; None at the end.

        So many pages that are free are left to others.
        """
        return self._next(spare)

    def stop(self) -> None:
        """Read no further; by any thread."""
        self._stopped = True

    # By any thread

    def _look(self) -> None:
        """Find the pages from which every layer can go on as the disk has it, as far as it goes."""
        keys, useful = list[tuple[int, ...]](), 0
        name = (self._held or [self._cache.root])[-1].name
        while len(key := tuple(self._tokens[(at := (len(self._held) + len(keys)) * PAGE) : at + PAGE])) == PAGE:
            name = name_after(name, key)
            if self._stopped or not any(self._store.has(file_of_page(name, windows)) for windows in (True, False)):
                break
            keys.append(key)
            if not self._cache.recurrent or self._store.has(file_of_state(name)):
                useful = len(keys)
        self._keys, self._next = keys[:useful], self._take

    def _read(self) -> None:
        """Read what pages were taken for, up to the first that is not there or not right."""
        for page in self._pages:
            if self._stopped or not self._read_page(page):
                self._stopped = True
                break
        self._next = self._link

    def _read_page(self, page: _Page) -> bool:
        for windows in (True, False):
            views = self._cache.memory.views(page.number, page.slot if windows else -1)
            parts = self._store.get(file_of_page(page.name, windows), [view.size for view in views])
            if parts is not None:
                for view, part in zip(views, parts, strict=True):
                    view[:] = part.reshape(view.shape)
                page.read, page.windows = True, windows
                return True
        return False

    def _read_state(self) -> None:
        """Read the state after the last page that has one, in memory or on disk; and count all files as used."""
        names = [node.name for node in self._held]
        if self._cache.recurrent:
            for at in range(len(names) - 1, -1, -1):
                if self._remembered[at]:
                    break
                parts = self._store.get(file_of_state(names[at]), [self._cache.states.nbytes, 8])
                if parts is not None:
                    self._state = names[at], parts
                    break
        if self._found:
            self._store.touch(file for name in reversed(names) for file in files_of(name))
        self._next = self._end

    # By the cache's thread

    def _take(self, spare: int) -> Callable[[], None]:
        """Take pages for what is to be read, as many as there are."""
        cache = self._cache
        name = (self._held or [cache.root])[-1].name
        for key in self._keys[: 0 if self._stopped else max(0, cache.free_pages - spare)]:
            name, number = name_after(name, key), cache.take_page()
            self._pages.append(_Page(key, name, number, int(cache.slots.of_page[number])))
        del self._keys[: len(self._pages)]
        if not self._pages:
            return self._read_state
        return self._read

    def _link(self, spare: int) -> Callable[[], None]:
        """Put what was read into the tree; pages that were not go back."""
        cache = self._cache
        for page in self._pages:
            parent = self._held[-1] if self._held else cache.root
            there = parent.children.get(page.key)
            cache.slots.release(page.number)
            if not page.windows:
                cache.slots.drop(page.number)
            if page.read and there is None:
                there = parent.children[page.key] = Node(parent, page.key, page.number, users=1, saved=True)
                self._found = True
            else:
                cache.give_back(page.number)
                if not page.read or there is None:
                    continue
                # Somebody else has read or written the same meanwhile.
                cache.hold(there)
            self._held.append(there)
            self._remembered.append(() in there.states)
        self._pages = []
        return self._take(spare)

    def _end(self, spare: int) -> None:
        """Remember the state, and let go of the pages."""
        cache = self._cache
        if self._state is not None and (cache.states.unused or cache.remembers):
            name, (data, pending) = self._state
            node = next(node for node in self._held if node.name == name)
            state = cache.take_state()
            cache.states.view(state)[:] = data
            saved = node.saved
            cache.remember_state(node, (), state, int(pending.view(np.int64)[0]))
            node.saved = saved
            cache.states.release(state)
        while self._held:
            cache.release(self._held.pop())


def fetch(cache: PrefixCache, tokens: Tokens[int]) -> None:
    """Read what the disk has of these tokens and the cache lacks, now."""
    reading = Fetch.of(cache, tokens)
    while reading is not None and (work := reading.next()) is not None:
        work()
