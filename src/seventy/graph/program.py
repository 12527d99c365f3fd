"""A model as a flat list of kernel calls; architectures in models/ write it line by line.

The program is laid out once, for the most rows a step may have. A step fills in a few numbers (tokens, positions,
block tables, which rows want logits) and the team runs the list; nothing of Python runs in between. An operation
waits for those before it only where it reads what they write or writes what they use.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seventy.cache.prefix import KVCache
from seventy.formats import PANEL
from seventy.graph.weights import Matrix, Weights
from seventy.jit.compiler import Kernel, Library
from seventy.kernels import activations, attention, embedding, matmul, rope, run
from seventy.kernels.activations import KINDS
from seventy.machine.memory import allocate

# A claim is one stretch of memory: long, for memory is read fastest in long stretches (docs/lab.md), but with at
# least eight claims for each thread, so that none waits long for another.
_CLAIM_BYTES = 1 << 20
_CLAIMS_PER_THREAD = 8
_MATMUL = "seventy.kernels.matmul:build"


@dataclass(frozen=True, slots=True)
class Buffer:
    """Rows of floats, padded to whole panels; `count` is the address of how many there are in this step."""

    name: str
    address: int
    columns: int
    stride: int
    capacity: int
    count: int
    memory: NDArray[np.uint8]

    def floats(self, rows: int) -> NDArray[np.float32]:
        """The first `rows` rows, a view."""
        whole = self.memory[: rows * self.stride].view(np.float32).reshape(rows, self.stride // 4)
        return whole[:, : self.columns]


@dataclass(frozen=True, slots=True)
class RotaryTables:
    """What kernels/rope.py turns `dim` dimensions of each head by."""

    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]
    dim: int
    interleaved: bool


@dataclass(slots=True)
class Activation:
    """An input of matrices: how to make it, and in which kinds it has been made already."""

    source: str
    a: Buffer
    b: int
    b_stride: int
    rows: int
    capacity: int
    row_map: int
    reads: tuple[str, ...]
    made: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Operation:
    kernel: Kernel
    arguments: NDArray[np.int64]
    barrier: bool
    weight_bytes: int


class Program:
    """The list and its memory. Inputs of a step are written into `tokens`, `positions`, `tables`, `outputs`."""

    def __init__(
        self,
        weights: Weights,
        cache: KVCache,
        max_rows: int,
        max_outputs: int,
        epsilon: float,
        threads: int,
        homes: Sequence[int] = (),
    ) -> None:
        """Claims are sized for `threads` threads; `homes` is the node (of those the weights are split over) of each."""
        self.weights, self.cache, self.threads = weights, cache, threads
        self._homes: NDArray[np.int64] = np.array(homes, np.int64)
        self.max_rows, self.max_outputs = max_rows, max_outputs
        self.tokens: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.positions: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.tables: NDArray[np.int64] = np.zeros(max_rows, np.int64)
        self.outputs: NDArray[np.int32] = np.zeros(max_outputs, np.int32)
        self.counts: NDArray[np.int64] = np.zeros(2, np.int64)
        self._constants: list[NDArray[np.float32]] = [np.array([epsilon], np.float32)]
        self._buffers: dict[str, Buffer] = {}
        self._scratch: dict[str, NDArray[np.uint8]] = {}
        self._operations: list[_Operation] = []
        self._written: set[str] = set()
        self._read: set[str] = set()
        # Every row reads every matrix but the embedding, which is read one row a token.
        self.bytes_per_pass = 0

    # What architectures use

    def buffer(self, name: str, columns: int, outputs: bool = False) -> Buffer:
        """Rows of `columns` floats: one for each row of the step, or for each row that wants logits."""
        if name not in self._buffers:
            stride = 4 * PANEL * -(-columns // PANEL)
            capacity = self.max_outputs if outputs else self.max_rows
            memory = allocate(capacity * stride)
            count = self.counts.ctypes.data + 8 * outputs
            self._buffers[name] = Buffer(name, memory.ctypes.data, columns, stride, capacity, count, memory)
        assert self._buffers[name].columns == columns, f"buffer {name} has two widths"
        return self._buffers[name]

    def embed(self, matrix: Matrix, into: Buffer) -> None:
        """into[row] = matrix[token of the row]"""
        self._add(
            Kernel("seventy.kernels.embedding:build", (matrix.format.name,)),
            embedding.ARGUMENTS,
            reads=(),
            writes=(into.name,),
            rows=into.count,
            panels=matrix.address,
            blocks=matrix.blocks,
            tokens=self.tokens.ctypes.data,
            output=into.address,
            output_stride=into.stride,
        )

    def plain(self, a: Buffer) -> Activation:
        """The rows as they are."""
        return Activation("plain", a, 0, 0, a.count, a.capacity, 0, (a.name,))

    def norm(self, a: Buffer, weight: NDArray[np.float32], outputs_only: bool = False) -> Activation:
        """RMSNorm of the rows, or of those that want logits."""
        address = weight.ctypes.data
        if outputs_only:
            count = self.counts.ctypes.data + 8
            return Activation(
                "norm", a, address, 0, count, self.max_outputs, self.outputs.ctypes.data, (a.name,)
            )
        return Activation("norm", a, address, 0, a.count, a.capacity, 0, (a.name,))

    def swiglu(self, gate: Buffer, up: Buffer) -> Activation:
        """silu(gate) * up"""
        return Activation(
            "swiglu", gate, up.address, up.stride, gate.count, gate.capacity, 0, (gate.name, up.name)
        )

    def matmul(
        self, x: Activation, matrix: Matrix, into: Buffer, bias: NDArray[np.float32] | None = None, add: bool = False
    ) -> None:
        """into = x times the matrix transposed, plus the bias, or added to what is there."""
        name, address = self._made(x, matrix.format.activation)
        self.bytes_per_pass += matrix.nbytes
        panel_bytes = matrix.blocks * matrix.format.panel_block
        self._add(
            Kernel(_MATMUL, (matrix.format.name,)),
            matmul.ARGUMENTS,
            reads=(name, into.name) if add else (name,),
            writes=(into.name,),
            rows=x.rows,
            panels=matrix.address,
            n_panels=matrix.panels,
            blocks=matrix.blocks,
            chunk=max(1, min(_CLAIM_BYTES // panel_bytes, matrix.panels // (_CLAIMS_PER_THREAD * self.threads))),
            input=address,
            capacity=x.capacity,
            output=into.address,
            output_stride=into.stride,
            bias=0 if bias is None else bias.ctypes.data,
            accumulate=int(add),
            nodes=len(self.weights.nodes),
            homes=self._homes.ctypes.data,
            weight_bytes=matrix.nbytes,
        )

    def rotate_and_store(
        self,
        queries: Buffer,
        keys: Buffer,
        values: Buffer,
        layer: int,
        head_dim: int,
        tables: RotaryTables,
        norms: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ) -> None:
        """RoPE on queries (in place) and keys; keys and values go into the layer's cache.

        `norms` are the weights of an RMSNorm of each query's and each key's head, before that.
        """
        kv_heads, group = keys.columns // head_dim, queries.columns // keys.columns
        self._constants += [tables.coarse, tables.fine]
        parameters = (kv_heads, group, head_dim, tables.dim, tables.interleaved, norms is not None, self.cache.kind)
        query_norm, key_norm = norms if norms else (None, None)
        self._add(
            Kernel("seventy.kernels.rope:build", parameters),
            rope.ARGUMENTS,
            reads=(queries.name, keys.name, values.name),
            writes=(queries.name, keys.name, f"cache {layer}"),
            rows=queries.count,
            positions=self.positions.ctypes.data,
            tables=self.tables.ctypes.data,
            coarse=tables.coarse.ctypes.data,
            fine=tables.fine.ctypes.data,
            queries=queries.address,
            query_stride=queries.stride,
            keys=keys.address,
            values=values.address,
            key_stride=keys.stride,
            cache=self.cache.layer(layer),
            n_pages=self.cache.n_pages,
            query_norm=0 if query_norm is None else query_norm.ctypes.data,
            key_norm=0 if key_norm is None else key_norm.ctypes.data,
            epsilon=self._constants[0].ctypes.data,
        )

    def attention(
        self, queries: Buffer, into: Buffer, layer: int, kv_heads: int, head_dim: int, scale: float
    ) -> None:
        """into = softmax(scale * queries . keys) . values for every head, over each row's own past."""
        self._constants.append(np.array([scale], np.float32))
        group = queries.columns // (kv_heads * head_dim)
        scratch = "attention"
        if scratch not in self._scratch:
            self._scratch[scratch] = allocate(attention.scratch_bytes(kv_heads, group, head_dim))
        self._add(
            Kernel("seventy.kernels.attention:build", (kv_heads, group, head_dim, self.cache.kind)),
            attention.ARGUMENTS,
            reads=(queries.name, f"cache {layer}"),
            writes=(into.name, scratch),
            rows=queries.count,
            positions=self.positions.ctypes.data,
            tables=self.tables.ctypes.data,
            queries=queries.address,
            query_stride=queries.stride,
            cache=self.cache.layer(layer),
            n_pages=self.cache.n_pages,
            scale=self._constants[-1].ctypes.data,
            output=into.address,
            scratch=self._scratch[scratch].ctypes.data,
        )

    # What the engine uses

    @property
    def memory(self) -> list[NDArray[np.uint8]]:
        """Every buffer of activations."""
        return [*(buffer.memory for buffer in self._buffers.values()), *self._scratch.values()]

    def kernels(self) -> list[Kernel]:
        return [operation.kernel for operation in self._operations]

    def first(self, weight_bytes: int) -> int:
        """How many operations from the first on read so much of the matrices; all, where they hold less."""
        read = 0
        for i, operation in enumerate(self._operations):
            read += operation.weight_bytes
            if read >= weight_bytes:
                return i + 1
        return len(self._operations)

    def tile_prompts(self, columns: int) -> None:
        """Lets a prompt's tiles go over so many columns at a time (kernels/matmul.py); changes no result."""
        assert columns % 256 == 0 and columns <= matmul.MOST_PROMPT_COLUMNS, f"tiles of {columns} columns"
        at = matmul.ARGUMENTS.index("prompt_columns")
        for operation in self._operations:
            if operation.kernel.builder == _MATMUL:
                operation.arguments[at] = columns

    def link(self, library: Library) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The program as kernels/run.py reads it, and its counters."""
        words = run.OPERATION_BYTES // 8
        table = np.zeros((len(self._operations), words), np.uint64)
        for line, operation in zip(table, self._operations, strict=True):
            line[:3] = library.address(operation.kernel), operation.arguments.ctypes.data, operation.barrier
        counters = np.zeros(len(table) * run.COUNTER_BYTES // 8, np.int64)
        return table, counters

    def __getitem__(self, name: str) -> Buffer:
        return self._buffers[name]

    def _made(self, x: Activation, kind_name: str) -> tuple[str, int]:
        """The activation in this kind: the name of its memory, and where it is."""
        if kind_name not in x.made:
            kind, columns = KINDS[kind_name], x.a.columns
            name = f"{x.source} {kind_name} {columns} {x.capacity}"
            nbytes = kind.nbytes(x.capacity, columns)
            if name not in self._scratch:
                self._scratch[name] = allocate(nbytes)
            address = int(self._scratch[name].ctypes.data)
            self._add(
                Kernel("seventy.kernels.activations:build", (x.source, kind_name)),
                activations.ARGUMENTS,
                reads=x.reads,
                writes=(name,),
                rows=x.rows,
                output=address,
                capacity=x.capacity,
                columns=columns,
                a=x.a.address,
                a_stride=x.a.stride,
                b=x.b,
                b_stride=x.b_stride,
                epsilon=self._constants[0].ctypes.data,
                row_map=x.row_map,
            )
            x.made[kind_name] = name, address
        return x.made[kind_name]

    def _add(
        self,
        kernel: Kernel,
        names: Sequence[str],
        reads: Sequence[str],
        writes: Sequence[str],
        weight_bytes: int = 0,
        **arguments: int,
    ) -> None:
        assert set(arguments) <= set(names), f"{set(arguments) - set(names)}"
        block = np.array([arguments.get(name, 0) for name in names], np.int64)
        barrier = bool(self._written.intersection(reads) or (self._written | self._read).intersection(writes))
        if barrier:
            self._written, self._read = set(), set()
        self._written.update(writes)
        self._read.update(reads)
        self._operations.append(_Operation(kernel, block, barrier, weight_bytes))
