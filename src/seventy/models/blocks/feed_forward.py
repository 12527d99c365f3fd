"""The gated feed-forward (Shazeer 2020)."""

from seventy.graph.buffers import Buffer
from seventy.graph.program import Activation, Program
from seventy.graph.weights import Weights
from seventy.models.blocks.config import Config


def feed_forward(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """x += down(silu(gate h) * up h) of the normalised x, h, or with another activation."""
    block = f"blk.{layer}."
    h = graph.norm(x, w.vector(f"{block}{c.feed_forward_norm}.weight", c.hidden))
    gate, up = gate_and_up(graph, w, h, block, c.feed_forward, c.hidden)
    down = w.matrix(block + "ffn_down.weight", c.hidden, c.feed_forward)
    acted = graph.gated(gate, up, c.activation)
    if c.post_norms:
        product = graph.buffer(c.hidden)
        graph.matmul(acted, down, product)
        graph.add_normalised(product, w.vector(block + "post_ffw_norm.weight", c.hidden), x)
    else:
        graph.matmul(acted, down, x, add=True)


def gate_and_up(
    graph: Program, w: Weights, h: Activation, block: str, width: int, hidden: int, suffix: str = ""
) -> tuple[Buffer, Buffer]:
    """Return both products of h; `suffix` is what the names of a shared expert's matrices end in."""
    gate, up = graph.buffer(width), graph.buffer(width)
    graph.matmul(h, w.matrix(f"{block}ffn_gate{suffix}.weight", width, hidden), gate)
    graph.matmul(h, w.matrix(f"{block}ffn_up{suffix}.weight", width, hidden), up)
    return gate, up
