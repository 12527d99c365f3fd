"""Rows of a tensor as the file has them into a panel: formats.Format.pack in machine code."""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Function, Module, Value
from seventy.jit.types import i64, pointer, u8, u16, u32
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "input", "row_bytes", "blocks", "output")


def build(module: Module, format_name: str) -> None:
    """Build the kernel (rows, row_bytes, n_rows, blocks, out) that packs 16 rows, or zeros, into a panel."""
    f = module.function("kernel", [pointer, i64, i64, i64, pointer])
    _pack(f, format_name, *f.arguments)


def build_of_rows(module: Module, format_name: str) -> None:
    """Build the kernel that packs a step's rows, `row_bytes` each, into consecutive panels."""
    k = Kernel(module, ARGUMENTS)
    rows, panel_bytes = k.count("rows"), k("blocks") * by_name(format_name).panel_block
    with k.claim((rows + (PANEL - 1)) // PANEL) as panel:
        first = panel * PANEL
        n_rows, source = (rows - first).minimum(PANEL), k("input", pointer) + first * k("row_bytes")
        _pack(k.f, format_name, source, k("row_bytes"), n_rows, k("blocks"), k("output", pointer) + panel * panel_bytes)


def _pack(
    f: Function, format_name: str, rows: Value, row_bytes: Value, n_rows: Value, blocks: Value, out: Value
) -> None:
    format = by_name(format_name)
    fields = [({1: u8, 2: u16, 4: u32}[size], offset, format.places[offset]) for offset, size in format.fields]
    with f.loop(blocks) as block:
        target = out + block * format.panel_block
        with f.loop(n_rows) as row:
            source = rows + row * row_bytes + block * format.nbytes
            for type, offset, place in fields:
                f.store(f.load(type, source, offset), target + row * type.nbytes, place)
        with f.loop(n_rows, PANEL) as row:
            for type, _, place in fields:
                f.store(f.constant(type, 0), target + row * type.nbytes, place)
