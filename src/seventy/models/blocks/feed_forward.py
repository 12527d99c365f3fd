"""The gated feed-forward (Shazeer 2020)."""

from seventy.graph.buffers import Buffer
from seventy.graph.products import Activation
from seventy.graph.program import Program
from seventy.graph.weights import Matrix, Weights
from seventy.models.blocks.config import Config


def feed_forward(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """x += down(silu(gate h) * up h) of the normalised x, h, or with another activation."""
    if c.post_norms:
        product = graph.buffer(c.hidden)
        graph.matmul(*before_down(graph, c, w, layer, x), product)
        add_to_residual(graph, c, w, layer, product, x)
    else:
        graph.matmul(*before_down(graph, c, w, layer, x), x, add=True)


def before_down(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> tuple[Activation, Matrix]:
    """Return the product of gate and up of the normalised x, and the matrix that is to multiply it."""
    block = f"blk.{layer}."
    h = graph.norm(x, w.vector(f"{block}{c.feed_forward_norm}.weight", c.hidden))
    gate, up = gate_and_up(graph, w, h, block, c.feed_forward, c.hidden)
    return graph.gated(gate, up, c.activation), w.matrix(block + "ffn_down.weight", c.hidden, c.feed_forward)


def add_to_residual(graph: Program, c: Config, w: Weights, layer: int, product: Buffer, x: Buffer) -> None:
    """x += the normalised product of a layer's feed-forward; then the layer's factor, where the file has one."""
    block = f"blk.{layer}."
    factor = w.optional_vector(block + "layer_output_scale.weight", 1)
    graph.add_normalised(product, w.vector(block + "post_ffw_norm.weight", c.hidden), x, factor)


def gate_and_up(
    graph: Program, w: Weights, h: Activation, block: str, width: int, hidden: int, suffix: str = ""
) -> tuple[Buffer, Buffer]:
    """Return both products of h; `suffix` is what the names of a shared expert's matrices end in."""
    gate, up = graph.buffer(width), graph.buffer(width)
    graph.matmul(h, w.matrix(f"{block}ffn_gate{suffix}.weight", width, hidden), gate)
    graph.matmul(h, w.matrix(f"{block}ffn_up{suffix}.weight", width, hidden), up)
    return gate, up
