"""Rows of a tensor as the file has them into a panel: formats.Format.pack in machine code."""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Module
from seventy.jit.types import i64, pointer, u8, u16, u32


def build(module: Module, format_name: str) -> None:
    """void kernel(rows, row_bytes, n_rows, blocks, out): one panel from 16 rows; missing rows become zeros."""
    format = by_name(format_name)
    fields = [({1: u8, 2: u16, 4: u32}[size], offset, format.places[offset]) for offset, size in format.fields]
    f = module.function("kernel", [pointer, i64, i64, i64, pointer])
    rows, row_bytes, n_rows, blocks, out = f.arguments
    with f.loop(blocks) as block:
        target = out + block * format.panel_block
        with f.loop(n_rows) as row:
            source = rows + row * row_bytes + block * format.nbytes
            for type, offset, place in fields:
                f.store(f.load(type, source, offset), target + row * type.nbytes, place)
        with f.loop(n_rows, PANEL) as row:
            for type, _, place in fields:
                f.store(f.constant(type, 0), target + row * type.nbytes, place)
