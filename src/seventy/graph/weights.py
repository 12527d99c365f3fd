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
from seventy.formats import PANEL, Format, formats
from seventy.gguf.source import Source
from seventy.gguf.tensors import GGML_TYPES, TensorInfo
from seventy.jit.compiler import Kernel, Library
from seventy.machine.memory import allocate, total_bytes
from seventy.machine.topology import pin_thread

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p)
_READ_BYTES = 8 << 20
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A packed matrix [rows, columns], or as many as there are `experts`, one after the other.

    `nbytes` is what it takes in the file, all experts together.
    """

    name: str
    format: Format
    rows: int
    columns: int
    address: int
    nbytes: int
    experts: int = 1

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


def format_of(info: TensorInfo) -> Format:
    """Raises SeventyError, with the types that work, where the engine cannot multiply this one."""
    known = formats()
    if info.type not in known:
        names = ", ".join(sorted(entry.name for entry in known.values()))
        raise SeventyError(
            f"tensor {info.name} has type {GGML_TYPES[info.type].name}, which this engine cannot multiply; "
            f"take a file whose tensors are of these types: {names}"
        )
    return known[info.type]


def packed_bytes(info: TensorInfo) -> int:
    """Memory of a tensor: a matrix in whole panels that begin on cache lines, a vector as floats."""
    format = format_of(info)
    if len(info.shape) not in (2, 3):
        return info.nbytes // format.nbytes * format.block * 4
    *experts, rows, columns = info.shape
    padded = -(-rows // PANEL) * PANEL * (experts[0] if experts else 1)
    return -(-padded * format.row_bytes(columns) // 64) * 64


class Weights:
    """The tensors a model uses; memory is set aside at once, `load` fills it.

    `nodes` are the CPUs of each NUMA node that shares the work: the first panels of every matrix lie on the first node,
    and so on (kernels/abi.py claim_by_node).

    Raises SeventyError for a tensor that is missing, of a type the engine does not know, or of the wrong shape.
    """

    def __init__(self, source: Source, nodes: Sequence[Sequence[int]] = ((),)) -> None:
        self._source = source
        self.nodes = nodes
        self._matrices: dict[str, Matrix] = {}
        self._vectors: dict[str, NDArray[np.float32]] = {}
        sizes = {info.name: packed_bytes(info) for info in source.tensors.values() if len(info.shape) in (2, 3)}
        self._arena = allocate(sum(sizes.values()))
        self._places = {}
        place = int(self._arena.ctypes.data)
        for name, size in sizes.items():
            self._places[name] = place
            place += size

    def _info(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        info = self._source.tensors.get(name)
        if info is None:
            raise SeventyError(f"{self._source.path} has no tensor {name}, which its architecture needs; get it again")
        if info.shape != shape:
            raise SeventyError(
                f"tensor {name} has shape {list(info.shape)}, its metadata says {list(shape)}; get the file again"
            )
        return info

    def has(self, name: str) -> bool:
        return name in self._source.tensors

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """The matrix of this name, which must have this shape; its panels are filled by `load`."""
        if name not in self._matrices:
            info = self._info(name, (rows, columns))
            self._matrices[name] = Matrix(name, format_of(info), rows, columns, self._places[name], info.nbytes)
        return self._matrices[name]

    def experts(self, name: str, experts: int, rows: int, columns: int) -> Matrix:
        """Return the matrices of this name, [experts, rows, columns]; their panels are filled by `load`."""
        if name not in self._matrices:
            info = self._info(name, (experts, rows, columns))
            place = self._places[name]
            self._matrices[name] = Matrix(name, format_of(info), rows, columns, place, info.nbytes, experts)
        return self._matrices[name]

    def refuse_unused(self) -> None:
        """Raises SeventyError where the file has tensors that nobody asked for: the model is not what it says."""
        unused = [name for name in self._source.tensors if name not in self._matrices and name not in self._vectors]
        if unused:
            more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
            raise SeventyError(
                f"{self._source.path} has tensors that its architecture has no use for: {', '.join(unused[:3])}{more}; "
                f"this engine would answer wrongly without them: take another model"
            )

    def vector(self, name: str, length: int) -> NDArray[np.float32]:
        """A norm's weights or a bias, padded with zeros to whole panels; read at once."""
        if name not in self._vectors:
            info = self._info(name, (length,))
            format = format_of(info)
            values = format.dequantize(self._source.read(info).reshape(-1, format.nbytes)).reshape(-1)
            padded = np.zeros(-(-length // PANEL) * PANEL, np.float32)
            padded[:length] = values
            self._vectors[name] = padded
        return self._vectors[name]

    def optional_vector(self, name: str, length: int) -> NDArray[np.float32] | None:
        """Return the vector of this name, or None where the file has none."""
        return self.vector(name, length) if self.has(name) else None

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices in use, as in the file."""
        return sum(matrix.nbytes for matrix in self._matrices.values())

    @property
    def memory(self) -> NDArray[np.uint8]:
        """Where the matrices lie."""
        return self._arena

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Those asked for so far."""
        return tuple(self._matrices.values())

    def kernels(self) -> list[Kernel]:
        names = sorted({matrix.format.name for matrix in self._matrices.values()})
        return [Kernel("seventy.kernels.pack:build", (name,)) for name in names]

    def load(self, library: Library, threads: int, progress: Progress | None = None) -> None:
        """Reads and packs every matrix asked for so far; `progress(bytes_done, bytes_in_all)`."""
        pack = {name: _SIGNATURE(library.address(kernel)) for kernel in self.kernels() for name in kernel.parameters}
        # A file that would fill the page cache is dropped behind us: the packed copy is the one we use.
        drop = self.nbytes > total_bytes() // 4 and hasattr(os, "posix_fadvise")
        done, lock = 0, threading.Lock()

        def read(chunk: tuple[Matrix, int, int, int]) -> None:
            nonlocal done
            matrix, expert, first, count = chunk
            info = self._source.tensors[matrix.name]
            row_bytes = matrix.format.row_bytes(matrix.columns)
            place = (expert * matrix.rows + first) * row_bytes
            rows = self._source.pread(info, place, count * row_bytes, _buffer(count * row_bytes))
            panel_bytes = matrix.blocks * matrix.format.panel_block
            for start in range(0, count, PANEL):
                target = matrix.address + expert * matrix.packed_bytes + (first + start) // PANEL * panel_bytes
                pack[matrix.format.name](
                    rows.ctypes.data + start * row_bytes, row_bytes, min(PANEL, count - start), matrix.blocks, target
                )
            if drop and (file := self._source.fileno(info)) is not None:
                os.posix_fadvise(file, info.offset + place, count * row_bytes, os.POSIX_FADV_DONTNEED)
            with lock:
                done += count * row_bytes
                if progress:
                    progress(done, self.nbytes)

        # Memory lies on the node of the thread that first writes it; that is also allowed where mbind is not.
        share = max(1, threads // len(self.nodes))
        with contextlib.ExitStack() as stack:
            pools = [
                stack.enter_context(ThreadPoolExecutor(share, initializer=_stay, initargs=(cpus,)))
                for cpus in self.nodes
            ]
            packed = [pool.map(read, self._chunks(node)) for node, pool in enumerate(pools)]
            for results in packed:
                for _ in results:
                    pass

    def _chunks(self, node: int) -> Iterator[tuple[Matrix, int, int, int]]:
        """(matrix, expert, first row, rows) of a node: whole panels of about _READ_BYTES."""
        nodes = len(self.nodes)
        for matrix in self._matrices.values():
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


