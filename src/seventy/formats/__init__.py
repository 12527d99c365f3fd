"""How each GGUF tensor type is stored, packed into panels and made into numbers.

A panel is 16 rows of a matrix. For each block of columns it holds the 8-bit fields of the 16 rows, then their 16-bit
fields, then their 32-bit words: word w of row r lies in lane r of the w-th group of 64 bytes. Nothing else changes: a
panel has the bytes of the file in another order, it is read once from start to end, and a product needs no sum across
lanes. How a product is computed is not known here (kernels/product/).
"""

import functools
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from seventy.formats.description import Blocks, Floats, SuperBlocks

PANEL = 16


def set_halves(*offsets: int) -> Callable[[NDArray[np.uint8], NDArray[np.float32]], None]:
    """Make a Format.set_factors for formats whose factors are half-precision numbers at these offsets."""

    def set_factors(blocks: NDArray[np.uint8], factors: NDArray[np.float32]) -> None:
        for offset in offsets:
            blocks[:, offset : offset + 2] = factors.astype(np.float16).view(np.uint8).reshape(-1, 2)

    return set_factors


@dataclass(frozen=True, slots=True)
class Format:
    """A GGUF tensor type: `nbytes` bytes hold `block` neighbouring weights of a row.

    `bytes`, `halves` and `words` are the offsets of the fields of 8, 16 and 32 bits in a block, in panel order: the
    order in which a product reads them. `weights` describes what they mean, and `dequantize([n, nbytes] u8) -> [n,
    block] f32` is the same in numpy. `set_factors(blocks [n, nbytes] u8, factors [n] f32)` writes the factors that all
    weights of a block are multiplied by (for floats: the weight itself), rounded to what the format can hold; random
    blocks are made with it.
    """

    name: str
    type_id: int
    block: int
    nbytes: int
    weights: Floats | Blocks | SuperBlocks
    dequantize: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    set_factors: Callable[[NDArray[np.uint8], NDArray[np.float32]], None]
    bytes: tuple[int, ...] = ()
    halves: tuple[int, ...] = ()
    words: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        covered = sorted(offset + i for offset, size in self.fields for i in range(size))
        assert covered == list(range(self.nbytes)), f"{self.name}: fields do not fill a block"

    @property
    def fields(self) -> list[tuple[int, int]]:
        """Offset in a block and bytes of every field, in panel order."""
        sizes = ((self.bytes, 1), (self.halves, 2), (self.words, 4))
        return [(offset, size) for offsets, size in sizes for offset in offsets]

    @property
    def places(self) -> dict[int, int]:
        """The offset of each field's 16 rows in a panel's block, by the field's offset in a block."""
        found, place = {}, 0
        for offset, size in self.fields:
            found[offset] = place
            place += PANEL * size
        return found

    @property
    def activation(self) -> str:
        """The kind of input its product takes (kernels/activations.py)."""
        if isinstance(self.weights, Floats):
            return "f32"
        return f"q8_{self.weights.size if isinstance(self.weights, Blocks) else self.block}"

    @property
    def slow(self) -> bool:
        """Whether a prompt's tiles should share unpacked weights whatever the width of vectors."""
        return not isinstance(self.weights, Floats) and self.weights.quants.slow

    @property
    def panel_block(self) -> int:
        """Bytes of one block of columns of a panel."""
        return PANEL * self.nbytes

    def row_bytes(self, columns: int) -> int:
        return columns // self.block * self.nbytes

    def pack(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pack rows [n, row_bytes] into panels [ceil(n / 16), columns / block, panel_block], as kernels/pack.py."""
        n = len(rows)
        padded = np.zeros((-(-n // PANEL) * PANEL, rows.shape[1]), np.uint8)
        padded[:n] = rows
        blocks = padded.reshape(-1, PANEL, rows.shape[1] // self.nbytes, self.nbytes).swapaxes(1, 2)
        parts = [blocks[..., offset : offset + size] for offset, size in self.fields]
        return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=-1)


@functools.cache
def formats() -> dict[int, Format]:
    """Return every format by its GGUF type id, found by import: one file each."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        entry = getattr(import_module(f"{__name__}.{module.name}"), "FORMAT", None)
        if entry:
            found[entry.type_id] = entry
    return found


def by_name(name: str) -> Format:
    return next(entry for entry in formats().values() if entry.name == name)
