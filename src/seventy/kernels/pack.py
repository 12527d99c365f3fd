"""Rows of a tensor as the file has them into a panel: formats.Format.pack in machine code."""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Module
from seventy.jit.types import i64, pointer, u16, u32


def build(module: Module, format_name: str) -> None:
    """void kernel(rows, row_bytes, n_rows, blocks, out): one panel from 16 rows; missing rows become zeros."""
    format = by_name(format_name)
    f = module.function("kernel", [pointer, i64, i64, i64, pointer])
    rows, row_bytes, n_rows, blocks, out = f.arguments
    with f.loop(blocks) as block:
        with f.loop(n_rows) as row:
            source = rows + row * row_bytes + block * format.nbytes
            target = out + block * format.panel_block
            for i, offset in enumerate(format.halves):
                f.store(f.load(u16, source, offset), target + row * 2, 32 * i)
            for i, offset in enumerate(format.words):
                f.store(f.load(u32, source, offset), target + row * 4, 32 * len(format.halves) + 64 * i)
        with f.loop(n_rows, PANEL) as row:
            target = out + block * format.panel_block
            for i in range(len(format.halves)):
                f.store(f.constant(u16, 0), target + row * 2, 32 * i)
            for i in range(len(format.words)):
                f.store(f.constant(u32, 0), target + row * 4, 32 * len(format.halves) + 64 * i)
