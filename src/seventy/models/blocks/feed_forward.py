"""The gated feed-forward (Shazeer 2020)."""

import numpy as np
from numpy.typing import NDArray

from seventy.graph.buffers import Buffer
from seventy.graph.products import Activation
from seventy.graph.program import Program
from seventy.graph.weights import Matrix, Weights
from seventy.models.blocks.config import Config


def feed_forward(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """Compute x += down(silu(gate h) * up h) with h = the normalised x, or with another activation."""
    if c.post_norms:
        product = graph.buffer(c.hidden)
        graph.matmul(*before_down(graph, c, w, layer, x), product)
        add_to_residual(graph, c, w, layer, product, x)
    else:
        graph.matmul(*before_down(graph, c, w, layer, x), x, add=True)


def before_down(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> tuple[Activation, Matrix]:
    """Return the product of gate and up of the normalised x, and the matrix that is to multiply it."""
    block = c.block(layer)
    h = graph.norm(x, w.vector(f"{block}{c.feed_forward_norm}.weight", c.hidden))
    width = c.feed_forward[layer]
    gate, up = gate_and_up(graph, w, h, block, width, c.hidden, fused=c.fused_gate)
    return graph.gated(gate, up, c.activation), w.matrix(block + "ffn_down.weight", c.hidden, width)


def add_to_residual(graph: Program, c: Config, w: Weights, layer: int, product: Buffer, x: Buffer) -> None:
    """Compute x += the normalised output of a layer's feed-forward, then scale x unless a per-layer input follows."""
    block = c.block(layer)
    factor = None if c.per_layer else layer_factor(w, block)
    graph.add_normalised(product, w.vector(block + "post_ffw_norm.weight", c.hidden), x, factor)


def layer_factor(w: Weights, block: str) -> NDArray[np.float32] | None:
    """Return the one number that the rows are multiplied by behind a layer, where the file has one."""
    return w.optional_vector(block + "layer_output_scale.weight", 1)


def gate_and_up(
    graph: Program,
    w: Weights,
    h: Activation,
    block: str,
    width: int,
    hidden: int,
    suffix: str = "",
    fused: bool = False,
) -> tuple[Buffer, Buffer]:
    """Return both products of h, whose matrices are one tensor where they are `fused`.

    `suffix` is what the names of a shared expert's matrices end in.
    """
    gate, up = graph.buffer(width), graph.buffer(width)
    if fused:
        matrices = w.stacked(f"{block}ffn_up{suffix}.weight", (width, width), hidden)
    else:
        matrices = tuple(w.matrix(f"{block}ffn_{name}{suffix}.weight", width, hidden) for name in ("gate", "up"))
    for matrix, into in zip(matrices, (gate, up), strict=True):
        graph.matmul(h, matrix, into)
    return gate, up
