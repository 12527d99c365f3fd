"""One matrix for each head times that head's part of every row: y[row, head] = w[head] x[row, head].

Threads claim panels of heads, which are multiplied by that head of all rows (kernels/gathered.py).
"""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Module
from seventy.jit.types import i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import KINDS, section_bases
from seventy.kernels.gathered import gathered_function

ARGUMENTS = (
    "rows", "heads", "panels", "n_panels", "blocks", "chunk", "input", "capacity", "numbers", "output",
    "output_stride", "head_stride", "prompt_columns",
)  # fmt: skip


def build(module: Module, format_name: str) -> None:
    """Multiply each row's head by the head's matrix.

    `panels` are the matrices of all heads, `n_panels` of `blocks` blocks each. `input` are activations whose rows, one
    for each head of each row of the step, lie one after the other: numbers[head, row], i32 [heads, capacity / heads],
    is which. Of the output, rows are `output_stride` bytes apart and their heads `head_stride`; whole panels of 16
    floats are written. `prompt_columns` is as in kernels/matmul.py.
    """
    format = by_name(format_name)
    gathered = gathered_function(module, format)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    blocks, n_panels, chunk, heads = k("blocks"), k("n_panels"), k("chunk"), k("heads")
    bases = section_bases(f, KINDS[format.activation], k("input", pointer), k("capacity"), blocks * format.block)
    parts = (n_panels + (chunk - 1)) // chunk
    none = f.constant(i64, 0)
    with k.claim(heads * parts) as item:
        head, first = item // parts, item % parts * chunk
        output = k("output", pointer) + head * k("head_stride") + first * (4 * PANEL)
        f.call(
            gathered.name, None, k("panels", pointer) + (head * n_panels + first) * (blocks * format.panel_block),
            (n_panels - first).minimum(chunk), blocks, k.count("rows"),
            k("numbers", pointer) + head * (k("capacity") // heads * 4), output, k("output_stride"),
            none, output, k("prompt_columns"), *bases,
        )  # fmt: skip
