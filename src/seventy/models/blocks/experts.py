"""A mixture of experts instead of a feed-forward (Shazeer et al. 2017)."""

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program, RouterRule
from seventy.graph.weights import Weights
from seventy.models.blocks.config import Config


def experts(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """x += the weighted sum of each row's experts, SwiGLU feed-forwards of the normalised x."""
    assert c.experts is not None
    block, e = f"blk.{layer}.", c.experts
    h = graph.norm(x, w.vector(block + "ffn_norm.weight", c.hidden))
    scores = graph.buffer(e.count)
    graph.matmul(h, w.matrix(block + "ffn_gate_inp.weight", e.count, c.hidden), scores)
    routes = graph.route(scores, RouterRule(e.used, normalise=True, scale=e.scale))
    gate = w.experts(block + "ffn_gate_exps.weight", e.count, e.feed_forward, c.hidden)
    up = w.experts(block + "ffn_up_exps.weight", e.count, e.feed_forward, c.hidden)
    down = w.experts(block + "ffn_down_exps.weight", e.count, c.hidden, e.feed_forward)
    graph.experts(h, routes, gate, up, down, x)
