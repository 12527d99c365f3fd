"""Matrices of experts times the rows routed to them: y[slot, n] = sum over k of w[expert of slot][n, k] x[.., k].

Threads claim panels of active experts; a panel is multiplied by all rows of its expert while it lies in the cache. A
row's sum is built as kernels/matmul.py builds it.
"""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Module
from seventy.jit.types import i32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import KINDS, section_bases
from seventy.kernels.matmul import tile_function

ARGUMENTS = (
    "panels", "n_panels", "blocks", "chunk", "input", "capacity", "inputs", "active", "starts", "output",
    "output_stride",
)  # fmt: skip


def build(module: Module, format_name: str) -> None:
    """Multiply each slot (kernels/route.py) by its expert's matrix.

    `panels` are the matrices of all experts, `n_panels` of `blocks` blocks each. `input` are activations whose rows lie
    one after the other; slot s reads row inputs[s], or row s where there is no such list.
    """
    format = by_name(format_name)
    kind = KINDS[format.activation]
    one = tile_function(module, format, 1)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    blocks, n_panels, chunk = k("blocks"), k("n_panels"), k("chunk")
    columns = blocks * format.block
    bases = section_bases(f, kind, k("input", pointer), k("capacity"), columns)
    none = f.constant(i64, 0)
    parts = (n_panels + chunk - 1) // chunk
    with k.claim(f.load(i32, k("active", pointer)).to(i64) * parts) as item:
        which = item // parts
        expert = f.load(i32, k("active", pointer), which * 4 + 4).to(i64)
        first, last = (f.load(i32, k("starts", pointer), which * 4 + 4 * i).to(i64) for i in (0, 1))
        start = item % parts * chunk
        with f.loop(start, (start + chunk).minimum(n_panels)) as panel:
            weights = k("panels", pointer) + (expert * n_panels + panel) * (blocks * format.panel_block)
            with f.loop(first, last) as slot:
                row = f.variable(i64, slot)
                with f.when(k("inputs") > 0):
                    row.set(f.load(i32, k("inputs", pointer), slot * 4).to(i64))
                inputs = [
                    base + row.get() * (columns // covered * 4)
                    for base, covered in zip(bases, kind.sections, strict=True)
                ]
                output = k("output", pointer) + slot * k("output_stride") + panel * (4 * PANEL)
                f.call(
                    one.name, None, weights, blocks, output, k("output_stride"), none, output, none, *inputs
                )
