"""How a row's past is cut into parts, and who computes and merges them (Flash-Decoding, Dao et al. 2023).

A row's past is cut into at most PARTS parts by its length alone, which are merged in order; so it does not matter
whether one thread computes all parts or each has its own. Rows of a prompt that follow each other go over their past
together where they are cut alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from seventy.jit.build import Value
from seventy.jit.types import i32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.pages import PAGE

PARTS = 16


class Rows(ABC):
    """`n` rows of one sequence, one position after the other, whose parts have at least `shortest` positions.

    That is a multiple of PAGE. With `windowed`, a row sees the last `window` positions only, an argument of the kernel.
    A kernel says what becomes of a part: `which` is the group of heads that is meant.
    """

    def __init__(self, k: Kernel, n: int, shortest: int, windowed: bool = False) -> None:
        self.k, self.n, self.shortest, self.windowed = k, n, shortest, windowed

    def length(self, row: Value) -> Value:
        return self.k.f.load(i32, self.k("positions", pointer), row * 4).to(i64) + 1

    def segment(self, row: Value) -> Value:
        return self.k.f.load(i32, self.k("segments", pointer), row * 4).to(i64)

    def first_page(self, row: Value) -> Value:
        """Return the first position of the first page that the row attends to."""
        if not self.windowed:
            return self.k.f.constant(i64, 0)
        return (self.length(row) - self.k("window")).maximum(0) // PAGE * PAGE

    def part_length(self, row: Value) -> Value:
        parts, seen = PARTS, self.length(row)
        if self.windowed:
            # What begins anywhere in its first part reaches into one more.
            parts, seen = PARTS - 1, seen.minimum(self.k("window") + (PAGE - 1))
        return (seen + (self.shortest * parts - 1)) // (self.shortest * parts) * self.shortest

    def first_part(self, row: Value) -> Value:
        """Return the number of the first part that the row attends to."""
        return self.first_page(row) // self.part_length(row) if self.windowed else self.k.f.constant(i64, 0)

    def end_part(self, row: Value) -> Value:
        """Return the number of the first part past those that the row attends to."""
        return (self.length(row) + self.part_length(row) - 1) // self.part_length(row)

    def parts(self, row: Value) -> Value:
        """Return the number of parts into which the positions a row sees are cut."""
        return self.end_part(row) - self.first_part(row) if self.windowed else self.end_part(row)

    def is_tile(self, first: Value, last: Value) -> Value:
        """Return whether rows `first` to `last` are `n` consecutive rows that can be processed together."""
        segments = [self.segment(row) for row in (first, last)]
        positions = self.length(last) - self.length(first)
        cut = self.part_length(first).eq(self.part_length(last)) & self.end_part(first).eq(self.end_part(last))
        return (last - first).eq(self.n - 1) & positions.eq(self.n - 1) & segments[0].eq(segments[1]) & cut

    @abstractmethod
    def compute(self, row: Value, which: Value, part: Value, result: Value) -> None:
        """Write one part of what the rows from `row` on see."""

    @abstractmethod
    def clear(self) -> None:
        """Reset the merged result."""

    @abstractmethod
    def merge(self, part: Value) -> None:
        """Merge a part into the result; the part is changed, too."""

    @abstractmethod
    def finish(self, row: Value, which: Value) -> None:
        """Write the output of the rows from `row` on."""

    @abstractmethod
    def whole(self, row: Value, which: Value) -> None:
        """Compute and merge all parts of the rows from `row` on, and write their output."""


def share(
    k: Kernel,
    groups: int,
    shared_rows: int,
    part_bytes: int,
    one: Rows,
    tile: Rows | None,
    split: Callable[[Value, Value], tuple[Value, Value, Value]],
) -> None:
    """Let threads claim all rows of a step for each of `groups` groups of heads.

    Up to `shared_rows` rows times groups, parts are claimed one by one, and whoever is last of a row merges them in
    `scratch`, zeros at first: 64 bytes and PARTS times `part_bytes` for each row and group. `split` says row, group and
    part of an item, given how many parts there are at most. Else whole rows are claimed, or a `tile` of them.
    """
    f, rows = k.f, k.count("rows")
    most = f.variable(i64, 1)
    shared = rows * groups <= max(shared_rows, groups)
    with f.when(shared), f.loop(rows) as row:
        most.set(most.get().maximum(one.parts(row)))
    with k.claim(rows * groups * shared.select(most.get(), 1)) as item:
        with f.when(shared):
            row, which, part = split(item, most.get())
            parts = one.parts(row)
            with f.when(part < parts):
                # Whoever is last of a row and group merges.
                done = k("scratch", pointer) + (row * groups + which) * (64 + PARTS * part_bytes)
                one.compute(row, which, one.first_part(row) + part, done + 64 + part * part_bytes)
                with f.when((f.atomic_add(done, 1) + 1).eq(parts)):
                    f.atomic_store(done, 0)
                    one.clear()
                    with f.loop(parts) as p:
                        one.merge(done + 64 + p * part_bytes)
                    one.finish(row, which)
        with f.when(shared.eq(False)):
            row, which = item // groups, item % groups
            if tile is None:
                one.whole(row, which)
            else:
                # Who claims the first row of a tile computes all; the others are nobody's.
                first = row // tile.n * tile.n
                is_tile = tile.is_tile(first, (first + (tile.n - 1)).minimum(rows - 1))
                with f.when(is_tile & row.eq(first)):
                    tile.whole(row, which)
                with f.when(is_tile.eq(False)):
                    one.whole(row, which)
