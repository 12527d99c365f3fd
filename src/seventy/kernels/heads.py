"""One matrix for each head times that head's part of every row: y[row, head] = w[head] x[row, head].

Threads claim panels of heads; a panel is multiplied by all rows while it lies in the cache. A row's sum is built as
kernels/matmul.py builds it.
"""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Module
from seventy.jit.types import i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import KINDS, section_bases
from seventy.kernels.matmul import tile_function

ARGUMENTS = (
    "rows", "heads", "panels", "n_panels", "blocks", "chunk", "input", "capacity", "output", "output_stride",
    "head_stride",
)  # fmt: skip


def build(module: Module, format_name: str) -> None:
    """Multiply each row's head by the head's matrix.

    `panels` are the matrices of all heads, `n_panels` of `blocks` blocks each. `input` are activations whose rows, one
    for each head of each row of the step, lie one after the other. Of the output, rows are `output_stride` bytes apart
    and their heads `head_stride`; whole panels of 16 floats are written.
    """
    format = by_name(format_name)
    kind = KINDS[format.activation]
    one = tile_function(module, format, 1)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    blocks, n_panels, chunk, heads = k("blocks"), k("n_panels"), k("chunk"), k("heads")
    columns = blocks * format.block
    bases = section_bases(f, kind, k("input", pointer), k("capacity"), columns)
    none = f.constant(i64, 0)
    parts = (n_panels + chunk - 1) // chunk
    with k.claim(heads * parts) as item:
        head, start = item // parts, item % parts * chunk
        with f.loop(start, (start + chunk).minimum(n_panels)) as panel:
            weights = k("panels", pointer) + (head * n_panels + panel) * (blocks * format.panel_block)
            output = k("output", pointer) + head * k("head_stride") + panel * (4 * PANEL)
            with f.loop(k.count("rows")) as row:
                inputs = [
                    base + (row * heads + head) * (columns // covered * 4)
                    for base, covered in zip(bases, kind.sections, strict=True)
                ]
                target = output + row * k("output_stride")
                f.call(one.name, None, weights, blocks, target, k("output_stride"), none, target, none, *inputs)
