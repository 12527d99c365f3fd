"""What every kernel of a program looks like: void kernel(arguments, counter, thread, threads).

`arguments` points to 64-bit words, `counter` to eight words that are 0 when the step begins: threads draw their share
of the work from the first, so that a busy core or a slow one takes less, or from one for each NUMA node. A kernel reads
row counts at run time.
"""

import contextlib
from collections.abc import Iterator, Sequence

from seventy.jit.build import Function, Module, Operand, Value
from seventy.jit.types import Type, i64, pointer

# As many as have a counter.
NODES = 8


class Kernel:
    """The function under construction and its named arguments."""

    def __init__(self, module: Module, names: Sequence[str]) -> None:
        self.f: Function = module.function("kernel", [pointer, pointer, i64, i64])
        self._names = list(names)
        self._arguments, self.counter, self.thread, self.threads = self.f.arguments

    def __call__(self, name: str, type: Type = i64) -> Value:
        """An argument as a number or, with type `pointer`, as an address."""
        return self.f.load(type, self._arguments, 8 * self._names.index(name), align=8)

    def count(self, name: str) -> Value:
        """Load the number at the address in this argument."""
        return self.f.load(i64, self(name, pointer), align=8)

    def begin_together(self, arrived: Value) -> None:
        """Wait until all threads have counted themselves at the address `arrived`."""
        self.f.atomic_add(arrived, 1)
        with self.f.forever() as wait:
            wait.leave_if(self.f.atomic_load(arrived) >= self.threads)
            self.f.call("llvm.x86.sse2.pause", None)

    @contextlib.contextmanager
    def claim(self, items: Operand) -> Iterator[Value]:
        """Run the body once per item, each item on one thread."""
        with self.f.forever() as loop:
            item = self.f.atomic_add(self.counter, 1)
            loop.leave_if(item >= items)
            yield item

    @contextlib.contextmanager
    def claim_by_node(
        self, items: Value, chunk: Value, nodes: Value, thread_nodes: Value
    ) -> Iterator[tuple[Value, Value]]:
        """Run the body for stretches of `chunk` items, each on one thread; yield the stretch's first item and its
        node's end.

        Node i of `nodes` (at most NODES; 0 counts as 1) owns the items from items * i / nodes on. A thread takes what
        its own node, thread_nodes[thread], owns, then helps the others.
        """
        f = self.f
        count, home = nodes.maximum(1), f.variable(i64, 0)
        with f.when(count > 1):
            home.set(f.load(i64, thread_nodes, self.thread * 8))
        with f.loop(count) as turn:
            node = (home.get() + turn) % count
            end = items * (node + 1) // count
            start = items * node // count
            with f.forever() as loop:
                first = start + f.atomic_add(self.counter + node * 8, 1) * chunk
                loop.leave_if(first >= end)
                yield first, end


def tile_widths(lanes: int) -> tuple[int, ...]:
    """List how many tokens a tile may hold at this vector width; every count is a sum of these."""
    return (8, 4, 2, 1) if lanes == 16 else (4, 2, 1)


def tile_of(f: Function, row: Value, rows: Value, widths: Sequence[int]) -> tuple[Value, Value]:
    """Return the first row and the width of the tile of `row`, with `rows` split into tiles, widest first."""
    start, width, base = f.constant(i64, 0), f.constant(i64, 1), f.constant(i64, 0)
    for w in widths:
        end = base + (rows - base) // w * w
        inside = (row >= base) & (row < end)
        start = inside.select(base + (row - base) // w * w, start)
        width = inside.select(w, width)
        base = end
    return start, width
