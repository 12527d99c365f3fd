"""How each GGUF tensor type is stored, packed into panels, multiplied and expanded.

A panel is 16 rows of a matrix. For each block of columns it holds the 16-bit fields of the 16 rows, then their
32-bit words: word w of row r lies in lane r of the w-th group of 64 bytes. Nothing else changes: a panel has the
bytes of the file in another order, it is read once from start to end, and a product needs no sum across lanes.
"""

import functools
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from seventy.formats.tile import Tile
from seventy.jit.build import Function, Value

PANEL = 16


@dataclass(frozen=True, slots=True)
class Format:
    """One GGUF tensor type: `nbytes` bytes hold `block` neighbouring weights of a row.

    `halves` and `words` are the offsets of the 16-bit and 32-bit fields in a block, in panel order.
    `activation` names the kind of input its product takes (kernels/activations.py). `multiply` adds a block's
    product to a tile's totals, `expand(f, block, out)` writes a block (in file order) as floats, and
    `dequantize([n, nbytes] u8) -> [n, block] f32` is their slow twin in numpy.
    """

    name: str
    type_id: int
    block: int
    nbytes: int
    halves: tuple[int, ...]
    words: tuple[int, ...]
    activation: str
    multiply: Callable[[Tile], None]
    expand: Callable[[Function, Value, Value], None]
    dequantize: Callable[[NDArray[np.uint8]], NDArray[np.float32]]

    def __post_init__(self) -> None:
        assert 2 * len(self.halves) + 4 * len(self.words) == self.nbytes, f"{self.name}: fields do not fill a block"

    @property
    def panel_block(self) -> int:
        """Bytes of one block of columns of a panel."""
        return PANEL * self.nbytes

    def row_bytes(self, columns: int) -> int:
        return columns // self.block * self.nbytes

    def pack(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Rows [n, row_bytes] as panels [ceil(n / 16), columns / block, panel_block]: kernels/pack.py's slow twin."""
        n = len(rows)
        padded = np.zeros((-(-n // PANEL) * PANEL, rows.shape[1]), np.uint8)
        padded[:n] = rows
        blocks = padded.reshape(-1, PANEL, rows.shape[1] // self.nbytes, self.nbytes).swapaxes(1, 2)
        parts = [blocks[..., o : o + 2] for o in self.halves] + [blocks[..., o : o + 4] for o in self.words]
        return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=-1)


@functools.cache
def formats() -> dict[int, Format]:
    """Every format by its GGUF type id, found by import: one file each."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        entry = getattr(import_module(f"{__name__}.{module.name}"), "FORMAT", None)
        if entry:
            found[entry.type_id] = entry
    return found


def by_name(name: str) -> Format:
    return next(entry for entry in formats().values() if entry.name == name)
