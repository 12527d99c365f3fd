"""A model's tensors in memory: matrices packed into panels, vectors as floats."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.formats import PANEL, Format, by_name, formats
from seventy.gguf.joined import origin
from seventy.gguf.source import Source
from seventy.gguf.tensors import GGML_TYPES, TensorInfo
from seventy.jit.compiler import Kernel, Library
from seventy.language import t
from seventy.machine.memory import allocate, total_bytes
from seventy.machine.topology import pin_thread

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p)
_READ_BYTES = 8 << 20
# A table as large as the rest of its model, of which a token needs one row.
STAYS_IN_FILE = "per_layer_token_embd.weight"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A packed matrix [rows, columns], or as many as there are `experts` or heads, one after the other.

    `nbytes` is what it takes in the file, all experts together. There it is the rows from `first_row` on of a tensor
    that has `tensor_rows` rows for each expert. Its products are multiplied by `scale`, of whole panels, where the file
    has one: of one number, or of one for each expert. Rows of a step go to some of the experts where it is `routed`,
    else to all. Where the file has the matrix transposed, `transposed` is its format there. With an `order`, its rows
    are those of the tensor's rows.
    """

    name: str
    format: Format
    rows: int
    columns: int
    address: int
    nbytes: int
    experts: int
    first_row: int
    tensor_rows: int
    scale: NDArray[np.float32] | None
    routed: bool = False
    transposed: Format | None = None
    order: NDArray[np.int64] | None = None

    @property
    def panels(self) -> int:
        return -(-self.rows // PANEL)

    @property
    def blocks(self) -> int:
        return self.columns // self.format.block

    @property
    def packed_bytes(self) -> int:
        """Bytes in memory of one expert."""
        return self.panels * self.blocks * self.format.panel_block


class Table:
    """A tensor of which each step reads some rows out of the file; `rows` are those, as the file has them."""

    def __init__(self, info: TensorInfo) -> None:
        self.info, self.format = info, format_of(info)
        self.row_bytes = self.format.row_bytes(info.shape[1])
        self.rows: NDArray[np.uint8] = np.zeros((0, self.row_bytes), np.uint8)
        self._source: Source | None = None
        self._files = contextlib.ExitStack()

    @property
    def blocks(self) -> int:
        return self.info.shape[1] // self.format.block

    def read(self, tokens: Sequence[int]) -> None:
        """Read the rows of these tokens. Raises SeventyError where the file became shorter or cannot be read."""
        assert self._source is not None, f"{self.info.name} is not open"
        size, file = self.row_bytes, self._source.fileno(self.info)
        if file is not None and len(tokens) > 1 and hasattr(os, "posix_fadvise"):
            # So that the disk fetches them side by side.
            for token in tokens:
                os.posix_fadvise(file, self.info.offset + token * size, size, os.POSIX_FADV_WILLNEED)
        for row, token in zip(self.rows, tokens, strict=False):
            self._source.pread(self.info, token * size, size, row)

    def open(self, source: Source) -> None:
        """Read from this source from now on, whether it stays open or not."""
        self._source = self._files.enter_context(source.reopened())

    def close(self) -> None:
        self._files.close()


def format_of(info: TensorInfo) -> Format:
    """Return a tensor's format. Raises SeventyError, with the supported types, if it cannot be multiplied."""
    known = formats()
    if info.type not in known:
        names = ", ".join(sorted(entry.name for entry in known.values()))
        raise SeventyError(
            "tensor {name} has type {type}, which this engine cannot multiply; take a file whose tensors are of "
            "these types: {names}",
            name=info.name, type=GGML_TYPES[info.type].name, names=names,
        )
    return known[info.type]


def _is_matrix(info: TensorInfo) -> bool:
    """Whether it is one or as many as there are experts; their biases, and convolutions, have two dimensions, too."""
    others = (".bias", "ssm_conv1d.weight", "shortconv.conv.weight", STAYS_IN_FILE)
    return len(info.shape) in (2, 3) and not info.name.endswith(others)


def packed_bytes(info: TensorInfo) -> int:
    """Memory of a tensor: a matrix in whole panels that begin on cache lines, a vector as floats."""
    format = format_of(info)
    if info.name == STAYS_IN_FILE:
        return 0
    if not _is_matrix(info):
        return info.nbytes // format.nbytes * format.block * 4
    *experts, rows, columns = info.shape
    padded = -(-rows // PANEL) * PANEL * (experts[0] if experts else 1)
    return -(-padded * format.row_bytes(columns) // 64) * 64


def transposed_format(info: TensorInfo) -> Format:
    """Return the format for a matrix that is transposed while it is loaded: floats that can hold the file's values."""
    return by_name("F32" if format_of(info).name in ("F32", "BF16") else "F16")


def transposed_bytes(info: TensorInfo, heads: int, rows: int, columns: int) -> int:
    """Return the bytes of `rows` rows of each head, transposed."""
    return heads * -(-columns // PANEL) * PANEL * transposed_format(info).row_bytes(rows)


def one_row_bytes(info: TensorInfo) -> int:
    """Return the bytes of a vector packed as a matrix of one row, which takes a whole panel."""
    return PANEL * info.nbytes


class Weights:
    """The tensors a model uses; memory is set aside at once, `load` fills it.

    `nodes` are the CPUs of each NUMA node that shares the work: the first panels of every matrix lie on the first node,
    and so on (kernels/abi.py claim_by_node). Tensors that `runs` denies are left where they are.

    Raises SeventyError for a tensor that is missing, of a type the engine does not know, or of the wrong shape.
    """

    def __init__(
        self, source: Source, nodes: Sequence[Sequence[int]] = ((),), runs: Callable[[str], bool] = lambda name: True
    ) -> None:
        self._source = source
        self._tensors = {name: info for name, info in source.tensors.items() if runs(name)}
        self.nodes = nodes
        # By the name of their tensor.
        self._matrices: dict[str, tuple[Matrix, ...]] = {}
        self._vectors: dict[str, NDArray[np.float32]] = {}
        # What is not kept as the file has it, and so has memory of its own.
        self.rows: list[NDArray[np.uint8]] = []
        self.tables: list[Table] = []
        sizes = {info.name: packed_bytes(info) for info in self._tensors.values() if _is_matrix(info)}
        self._arena = allocate(sum(sizes.values()))
        self._places = {}
        place = int(self._arena.ctypes.data)
        for name, size in sizes.items():
            self._places[name] = place
            place += size

    def _info(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        info, (path, own_name) = self._tensors.get(name), origin(self._source, name)
        if info is None:
            raise SeventyError(
                "{path} has no tensor {name}, which its architecture needs; get it again", path=path, name=own_name
            )
        if info.shape != shape:
            raise SeventyError(
                "{path}: tensor {name} has shape {shape}, its metadata says {wanted}; get the file again",
                path=path, name=own_name, shape=list(info.shape), wanted=list(shape),
            )
        return info

    def has(self, name: str) -> bool:
        return name in self._tensors

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Return the matrix of this name, which must have this shape; `load` fills its panels."""
        return self.stacked(name, (rows,), columns)[0]

    def experts(self, name: str, experts: int, rows: int, columns: int) -> Matrix:
        """Return the matrices of this name, [experts, rows, columns]; their panels are filled by `load`."""
        return self.stacked(name, (rows,), columns, experts)[0]

    def stacked(self, name: str, rows: Sequence[int], columns: int, experts: int = 0) -> tuple[Matrix, ...]:
        """Return the matrices of so many rows each that lie one below the other in the tensor of this name.

        With `experts`, they do so in each expert.
        """
        if name not in self._matrices:
            shape = (sum(rows), columns)
            info = self._info(name, (experts, *shape) if experts else shape)
            if any(n % PANEL for n in rows[:-1]):
                raise SeventyError(
                    "tensor {name} holds matrices of {rows} rows; the engine needs multiples of {panel}: take a file "
                    "in which they are tensors of their own",
                    name=name, rows=", ".join(map(str, rows)), panel=PANEL,
                )
            format, count, parts = format_of(info), max(1, experts), []
            scale = self._scale(name, count)
            place, first = self._places[name], 0
            for n in rows:
                nbytes = info.nbytes * n // sum(rows)
                matrix = Matrix(name, format, n, columns, place, nbytes, count, first, sum(rows), scale, experts > 0)
                parts.append(matrix)
                place, first = place + count * parts[-1].packed_bytes, first + n
            self._matrices[name] = tuple(parts)
        return self._matrices[name]

    def picked(self, name: str, orders: Sequence[NDArray[np.int64]], columns: int) -> tuple[Matrix, ...]:
        """Return matrices of some rows each, in this order, of the tensor of this name; each row is in one of them."""
        if name not in self._matrices:
            info = self._info(name, (sum(map(len, orders)), columns))
            format, parts, scale = format_of(info), [], self._scale(name, 1)
            padded = sum(-(-len(order) // PANEL) for order in orders) * PANEL * format.row_bytes(columns)
            place = self._places[name]
            if padded > packed_bytes(info):
                self.rows.append(allocate(padded))
                place = int(self.rows[-1].ctypes.data)
            for order in orders:
                n = len(order)
                nbytes = info.nbytes * n // info.shape[0]
                parts.append(Matrix(name, format, n, columns, place, nbytes, 1, 0, info.shape[0], scale, order=order))
                place += parts[-1].packed_bytes
            self._matrices[name] = tuple(parts)
        return self._matrices[name]

    def _scale(self, name: str, count: int) -> NDArray[np.float32] | None:
        """What the file says to multiply a tensor's products by, of `count` matrices."""
        companion = name.removesuffix(".weight") + ".scale"
        # What is of another length under this name means something else (Gemma 4's router).
        known = self.has(companion) and self._tensors[companion].shape == (count,)
        return self.vector(companion, count) if known else None

    def heads(self, name: str, heads: int, rows: int, columns: int) -> Matrix:
        """Return the matrices of this name, [heads, rows, columns], to which every row goes."""
        if name not in self._matrices:
            info = self._info(name, (heads, rows, columns))
            place = self._places[name]
            self._matrices[name] = (
                Matrix(name, format_of(info), rows, columns, place, info.nbytes, heads, 0, rows, None),
            )  # fmt: skip
        return self._matrices[name][0]

    def split_heads(self, name: str, heads: int, rows: tuple[int, int], columns: int) -> tuple[Matrix, ...]:
        """Return two matrices for each head out of a tensor [heads * sum(rows), columns].

        A head's first rows, transposed, are kept as floats (`transposed_format`); the others are as in the file.
        """
        if name not in self._matrices:
            info = self._info(name, (heads * sum(rows), columns))
            format, floats, (first, second) = format_of(info), transposed_format(info), rows
            self.rows.append(allocate(transposed_bytes(info, heads, first, columns)))
            place, part = int(self.rows[-1].ctypes.data), info.nbytes // sum(rows)
            self._matrices[name] = (
                Matrix(name, floats, columns, first, place, part * first, heads, 0, sum(rows), None, transposed=format),
                Matrix(name, format, second, columns, self._places[name], part * second, heads, first, sum(rows), None),
            )
        return self._matrices[name]

    def row(self, name: str, columns: int) -> Matrix:
        """Return a vector as a matrix of one row; its panel is filled by `load`."""
        if name not in self._matrices:
            info = self._info(name, (columns,))
            self.rows.append(allocate(one_row_bytes(info)))
            place = int(self.rows[-1].ctypes.data)
            self._matrices[name] = (Matrix(name, format_of(info), 1, columns, place, info.nbytes, 1, 0, 1, None),)
        return self._matrices[name][0]

    def table(self, name: str, rows: int, columns: int) -> Table:
        """Return the tensor of this name, which stays in the file (STAYS_IN_FILE)."""
        self.tables.append(Table(self._info(name, (rows, columns))))
        return self.tables[-1]

    def close(self) -> None:
        """Close the files that tables are read from."""
        for table in self.tables:
            table.close()

    def refuse_unused(self) -> None:
        """Raise SeventyError if the file has tensors that the architecture it names does not use."""
        used = {*self._matrices, *self._vectors, *(table.info.name for table in self.tables)}
        found = [origin(self._source, name) for name in self._tensors if name not in used]
        if found:
            unused = [name for path, name in found if path == found[0][0]]
            more = t(" and {unused_count} more", unused_count=len(unused) - 3) if len(unused) > 3 else ""
            raise SeventyError(
                "{path} has tensors that its architecture has no use for: {unused}{more}; this engine would answer "
                "wrongly without them: take another model",
                path=found[0][0], unused=", ".join(unused[:3]), more=more,
            )

    def vector(self, name: str, length: int) -> NDArray[np.float32]:
        """Read a norm's weights or a bias, padded with zeros to whole panels."""
        return self._floats(name, (length,))

    def _floats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name not in self._vectors:
            info = self._info(name, shape)
            format = format_of(info)
            values = format.dequantize(self._source.read(info).reshape(-1, format.nbytes)).reshape(shape)
            *_, length = shape
            padded = np.zeros((*shape[:-1], -(-length // PANEL) * PANEL), np.float32)
            padded[..., :length] = values
            self._vectors[name] = padded
        return self._vectors[name]

    def optional_vector(self, name: str, length: int) -> NDArray[np.float32] | None:
        """Return the vector of this name, or None where the file has none."""
        return self.vector(name, length) if self.has(name) else None

    def taps(self, name: str, channels: int, taps: int) -> NDArray[np.float32]:
        """Return the weights of a convolution, f32 [taps, channels]; the last tap is that of the row itself."""
        return np.ascontiguousarray(self._floats(name, (channels, taps))[:, :taps].T)

    def optional_biases(self, name: str, experts: int, length: int) -> NDArray[np.float32] | None:
        """Return a bias for each of the experts, [experts, whole panels], or None where the file has none."""
        return self._floats(name, (experts, length)) if self.has(name) else None

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices in use, as in the file."""
        return sum(matrix.nbytes for matrix in self.matrices)

    @property
    def memory(self) -> NDArray[np.uint8]:
        """The memory that holds the matrices."""
        return self._arena

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrices asked for so far."""
        return tuple(matrix for parts in self._matrices.values() for matrix in parts)

    def kernels(self) -> list[Kernel]:
        names = sorted({matrix.format.name for matrix in self.matrices})
        return [Kernel("seventy.kernels.pack:build", (name,)) for name in names]

    def load(self, library: Library, threads: int, progress: Progress | None = None) -> None:
        """Read and pack every matrix asked for so far, and open tables; calls `progress(bytes_done, bytes_in_all)`."""
        for table in self.tables:
            table.open(self._source)
        pack = {name: _SIGNATURE(library.address(kernel)) for kernel in self.kernels() for name in kernel.parameters}
        # A file that would fill the page cache is dropped behind us: the packed copy is the one we use.
        drop = self.nbytes > total_bytes() // 4 and hasattr(os, "posix_fadvise")
        done, lock, failed = 0, threading.Lock(), threading.Event()

        def read_unless_failed(chunk: tuple[Matrix, int, int, int]) -> None:
            # What others began is ended; nothing more is begun for a file that cannot be read.
            if not failed.is_set():
                try:
                    read(chunk)
                except BaseException:
                    failed.set()
                    raise

        def read(chunk: tuple[Matrix, int, int, int]) -> None:
            nonlocal done
            matrix, expert, first, count = chunk
            info = self._tensors[matrix.name]
            row_bytes = matrix.format.row_bytes(matrix.columns)
            rows, place, nbytes = self._rows_of(matrix, expert, first, count)
            panel_bytes = matrix.blocks * matrix.format.panel_block
            for start in range(0, count, PANEL):
                target = matrix.address + expert * matrix.packed_bytes + (first + start) // PANEL * panel_bytes
                pack[matrix.format.name](
                    rows.ctypes.data + start * row_bytes, row_bytes, min(PANEL, count - start), matrix.blocks, target
                )
            if drop and (file := self._source.fileno(info)) is not None:
                os.posix_fadvise(file, info.offset + place, nbytes, os.POSIX_FADV_DONTNEED)
            with lock:
                done += matrix.nbytes * count // (matrix.rows * matrix.experts)
                if progress:
                    progress(done, self.nbytes)

        # Memory lies on the node of the thread that first writes it; that is also allowed where mbind is not.
        share = max(1, threads // len(self.nodes))
        with contextlib.ExitStack() as stack:
            pools = [
                stack.enter_context(ThreadPoolExecutor(share, initializer=_stay, initargs=(cpus,)))
                for cpus in self.nodes
            ]
            packed = [pool.map(read_unless_failed, self._chunks(node)) for node, pool in enumerate(pools)]
            for results in packed:
                for _ in results:
                    pass

    def _rows_of(self, matrix: Matrix, expert: int, first: int, count: int) -> tuple[NDArray[np.uint8], int, int]:
        """The bytes of some rows of a matrix; and which bytes of the tensor were read for them: from where, how many.

        Rows that follow each other are read into this thread's buffer.
        """
        info, in_file = self._tensors[matrix.name], matrix.transposed or matrix.format
        row_bytes = in_file.row_bytes(matrix.rows if matrix.transposed else matrix.columns)
        start = expert * matrix.tensor_rows + matrix.first_row
        if matrix.transposed:
            place, nbytes = start * row_bytes, matrix.columns * row_bytes
            blocks = self._source.pread(info, place, nbytes).reshape(-1, in_file.nbytes)
            columns = in_file.dequantize(blocks).reshape(matrix.columns, matrix.rows)[:, first : first + count]
            kind = np.float16 if matrix.format.name == "F16" else np.float32
            return np.ascontiguousarray(columns.T, kind).view(np.uint8).reshape(-1), place, nbytes
        if matrix.order is not None:
            order = matrix.order[first : first + count]
            least, end = int(order.min()), int(order.max()) + 1
            place, nbytes = least * row_bytes, (end - least) * row_bytes
            rows = self._source.pread(info, place, nbytes).reshape(-1, row_bytes)
            return rows[order - least].reshape(-1), place, nbytes
        place, nbytes = (start + first) * row_bytes, count * row_bytes
        return self._source.pread(info, place, nbytes, _buffer(nbytes)), place, nbytes

    def _chunks(self, node: int) -> Iterator[tuple[Matrix, int, int, int]]:
        """(matrix, expert, first row, rows) of a node: whole panels of about _READ_BYTES."""
        nodes = len(self.nodes)
        for matrix in self.matrices:
            step = max(1, _READ_BYTES // (matrix.format.row_bytes(matrix.columns) * PANEL)) * PANEL
            start, end = (matrix.panels * i // nodes * PANEL for i in (node, node + 1))
            for expert in range(matrix.experts):
                for first in range(start, end := min(end, matrix.rows), step):
                    yield matrix, expert, first, min(step, end - first)


def _stay(cpus: Sequence[int]) -> None:
    """Keeps a thread that packs on its node, where there are several."""
    if cpus:
        with contextlib.suppress(OSError):
            pin_thread(cpus)


_local = threading.local()


def _buffer(nbytes: int) -> NDArray[np.uint8]:
    """This thread's read buffer, grown as needed."""
    if getattr(_local, "buffer", None) is None or len(_local.buffer) < nbytes:
        _local.buffer = np.empty(nbytes, np.uint8)
    buffer: NDArray[np.uint8] = _local.buffer[:nbytes]
    return buffer


