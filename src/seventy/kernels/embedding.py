"""Rows of a packed matrix as floats: the token embedding, without a second copy of a tied one."""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Module
from seventy.jit.types import i32, i64, pointer, u16, u32
from seventy.kernels.abi import Kernel

ARGUMENTS = ("rows", "panels", "blocks", "tokens", "output", "output_stride")


def build(module: Module, format_name: str) -> None:
    """output[row] = matrix[tokens[row]]"""
    format = by_name(format_name)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    buffer = f.memory(format.nbytes)
    with k.claim(k.count("rows")) as row:
        token = f.load(i32, k("tokens", pointer), row * 4).to(i64)
        lane = token % PANEL
        panel = k("panels", pointer) + (token // PANEL) * (k("blocks") * format.panel_block)
        output = k("output", pointer) + row * k("output_stride")
        with f.loop(k("blocks")) as block:
            source = panel + block * format.panel_block
            for i, offset in enumerate(format.halves):
                f.store(f.load(u16, source + lane * 2, 32 * i), buffer, offset)
            for i, offset in enumerate(format.words):
                f.store(f.load(u32, source + lane * 4, 32 * len(format.halves) + 64 * i), buffer, offset)
            format.expand(f, buffer, output + block * (4 * format.block))
