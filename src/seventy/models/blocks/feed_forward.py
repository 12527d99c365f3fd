"""The SwiGLU feed-forward (Shazeer 2020)."""

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks.config import Config


def feed_forward(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """x += down(silu(gate h) * up h) of the normalised x, h."""
    block = f"blk.{layer}."
    gate, up = graph.buffer(c.feed_forward), graph.buffer(c.feed_forward)
    h = graph.norm(x, w.vector(block + "ffn_norm.weight", c.hidden))
    graph.matmul(h, w.matrix(block + "ffn_gate.weight", c.feed_forward, c.hidden), gate)
    graph.matmul(h, w.matrix(block + "ffn_up.weight", c.feed_forward, c.hidden), up)
    down = w.matrix(block + "ffn_down.weight", c.hidden, c.feed_forward)
    graph.matmul(graph.swiglu(gate, up), down, x, add=True)
