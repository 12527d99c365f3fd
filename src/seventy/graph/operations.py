"""A flat list of kernel calls and the memory they share, laid out once.

An operation waits for those before it only where it reads what they write or writes what they use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seventy.graph.buffers import Access, Memory, barriers, place
from seventy.jit.compiler import Kernel, Library
from seventy.kernels import matmul, run
from seventy.runtime.threads import Linked

# Numbers whose address a kernel is given.
Array = NDArray[Any]

@dataclass(slots=True)
class _Operation:
    """`arguments` may be memory, whose address is known once it is placed; `block` is then what the kernel reads."""

    kernel: Kernel
    names: Sequence[str]
    arguments: dict[str, int | Memory]
    access: Access
    weight_bytes: int
    block: NDArray[np.int64]
    barrier: bool = False


class Operations:
    """The list. An operation names its kernel, its arguments, and what it reads and writes."""

    def __init__(self) -> None:
        self._operations: list[_Operation] = []
        self._step: int | None = None
        self.memory: list[NDArray[np.uint8]] = []
        # What operations were given the addresses of: it lives as long as they do.
        self._arrays: list[Array] = []

    def end_of_step(self) -> None:
        """Mark the end of the step's operations: those added later are a separate program in the same memory."""
        self._step = len(self._operations)

    def _add(
        self,
        kernel: Kernel,
        names: Sequence[str],
        reads: tuple[object, ...],
        writes: tuple[object, ...],
        weight_bytes: int = 0,
        **arguments: int | Memory | Array | None,
    ) -> None:
        """Add an operation. A kernel is given the addresses of memory and of arrays, and 0 for None."""
        assert set(arguments) <= set(names), f"{set(arguments) - set(names)}"
        given = {name: self._address(value) for name, value in arguments.items()}
        block = np.zeros(len(names), np.int64)
        self._operations.append(_Operation(kernel, names, given, Access(reads, writes), weight_bytes, block))

    def _address(self, value: int | Memory | Array | None) -> int | Memory:
        """Return the address of an array, which is kept with the program; 0 for None; a number or memory itself."""
        if isinstance(value, np.ndarray):
            self._arrays.append(value)
            return int(value.ctypes.data)
        return 0 if value is None else value

    def finish(self) -> None:
        """Place all memory and find where threads must wait; nothing can be added afterwards."""
        accesses = [operation.access for operation in self._operations]
        self.memory = place(accesses)
        for operation, barrier in zip(self._operations, barriers(accesses), strict=True):
            operation.barrier = barrier
            values = (operation.arguments.get(name, 0) for name in operation.names)
            operation.block[:] = [value.address if isinstance(value, Memory) else value for value in values]

    def kernels(self) -> list[Kernel]:
        return [operation.kernel for operation in self._operations]

    def arguments(self) -> list[dict[str, int]]:
        """Return what each operation's kernel is given, by name, of a finished program."""
        return [dict(zip(each.names, each.block.tolist(), strict=True)) for each in self._operations]

    def first(self, weight_bytes: int) -> int:
        """Return how many of a step's first operations read `weight_bytes` of the matrices; all if they read less."""
        read, step = 0, self._operations[: self._step]
        for i, operation in enumerate(step):
            read += operation.weight_bytes
            if read >= weight_bytes:
                return i + 1
        return len(step)

    def tile_prompts(self, columns: int) -> None:
        """Set how many columns a prompt's tiles cover at a time (kernels/matmul.py). Changes no result."""
        assert columns % 256 == 0 and columns <= matmul.MOST_PROMPT_COLUMNS, f"tiles of {columns} columns"
        for operation in self._operations:
            if "prompt_columns" in operation.names:
                operation.block[operation.names.index("prompt_columns")] = columns

    def link(self, library: Library) -> Linked:
        """Link a step's operations to the addresses of their kernels in a library."""
        return self._link(library, self._operations[: self._step])

    def link_rest(self, library: Library) -> Linked | None:
        """Link the operations after a step's; None if there are none."""
        return None if self._step is None else self._link(library, self._operations[self._step :])

    def _link(self, library: Library, operations: Sequence[_Operation]) -> Linked:
        words = run.OPERATION_BYTES // 8
        table = np.zeros((len(operations), words), np.uint64)
        for line, operation in zip(table, operations, strict=True):
            line[:3] = library.address(operation.kernel), operation.block.ctypes.data, operation.barrier
        counters = np.zeros(len(table) * run.COUNTER_BYTES // 8, np.int64)
        return Linked(table, counters)
