"""Matrices of experts times the rows routed to them: y[slot, n] = sum over k of w[expert of slot][n, k] x[.., k].

Threads claim panels of active experts, which are multiplied by all rows of their expert (kernels/gathered.py).
"""

from seventy.formats import PANEL, by_name
from seventy.jit.build import Module
from seventy.jit.types import i32, i64, pointer
from seventy.kernels.abi import Kernel
from seventy.kernels.activations import KINDS, section_bases
from seventy.kernels.gathered import gathered_function

ARGUMENTS = (
    "panels", "n_panels", "blocks", "chunk", "input", "capacity", "inputs", "active", "starts", "output",
    "output_stride", "bias", "prompt_columns",
)  # fmt: skip
# So many claims for each thread, that none waits long for another; a claim has `chunk` panels at most.
_CLAIMS_PER_THREAD = 4


def build(module: Module, format_name: str) -> None:
    """Multiply each slot (kernels/route.py) by its expert's matrix.

    `panels` are the matrices of all experts, `n_panels` of `blocks` blocks each. `input` are activations whose rows lie
    one after the other; slot s reads row inputs[s]. Where `bias` is an address, the expert's row of it, f32 [experts,
    n_panels * 16], is added. `prompt_columns` is as in kernels/matmul.py.
    """
    format = by_name(format_name)
    gathered = gathered_function(module, format)
    k = Kernel(module, ARGUMENTS)
    f = k.f
    blocks, n_panels = k("blocks"), k("n_panels")
    bases = section_bases(f, KINDS[format.activation], k("input", pointer), k("capacity"), blocks * format.block)
    n_active = f.load(i32, k("active", pointer)).to(i64)
    wanted = (k.threads * _CLAIMS_PER_THREAD + (n_active - 1)) // n_active
    chunk = ((n_panels + (wanted - 1)) // wanted).minimum(k("chunk"))
    parts = (n_panels + (chunk - 1)) // chunk
    with k.claim(n_active * parts) as item:
        which, first = item // parts, item % parts * chunk
        expert = f.load(i32, k("active", pointer), which * 4 + 4).to(i64)
        start, end = (f.load(i32, k("starts", pointer), which * 4 + 4 * i).to(i64) for i in (0, 1))
        panel = expert * n_panels + first
        f.call(
            gathered.name, None, k("panels", pointer) + panel * (blocks * format.panel_block),
            (n_panels - first).minimum(chunk), blocks, end - start, k("inputs", pointer) + start * 4,
            k("output", pointer) + start * k("output_stride") + first * (4 * PANEL), k("output_stride"),
            k("bias"), k("bias", pointer) + panel * (4 * PANEL), k("prompt_columns"), *bases,
        )  # fmt: skip
