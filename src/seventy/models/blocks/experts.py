"""A mixture of experts instead of a feed-forward (Shazeer et al. 2017; Dai et al. 2024 for the shared expert)."""

import numpy as np
from numpy.typing import NDArray

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program
from seventy.graph.weights import Matrix, Weights
from seventy.models.blocks.config import Config, Experts
from seventy.models.blocks.feed_forward import add_to_residual, before_down, feed_forward, gate_and_up

SHARED_GATE = "ffn_gate_inp_shexp.weight"


def feed_forward_or_experts(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """Compute x += a feed-forward, or from the first layer with experts on a mixture of them."""
    if c.experts and layer >= c.experts.first_layer:
        experts(graph, c, w, layer, x)
    else:
        feed_forward(graph, c, w, layer, x)


def experts(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """Compute x += the weighted sum of each row's experts (feed-forwards of the normalised x), and the shared expert.

    The router and the experts have biases if the file has them.
    """
    assert c.experts is not None
    block, e = f"blk.{layer}.", c.experts
    h = graph.norm(x, w.vector(f"{block}{c.feed_forward_norm}.weight", c.hidden))
    scores = graph.buffer(e.count)
    router = w.matrix(block + "ffn_gate_inp.weight", e.count, c.hidden)
    graph.matmul(h, router, scores, w.optional_vector(block + "ffn_gate_inp.bias", e.count))
    shared = shared_gate = None
    if e.shared:
        # Stands before the routing and so runs beside it.
        halves = gate_and_up(graph, w, h, block, e.shared, c.hidden, "_shexp")
        shared = graph.gated(*halves), w.matrix(block + "ffn_down_shexp.weight", c.hidden, e.shared)
        if e.shared_gate:
            shared_gate = graph.buffer(1)
            graph.matmul(h, w.row(block + SHARED_GATE, c.hidden), shared_gate)
    routes = graph.route(scores, e.rule, w.optional_vector(block + "exp_probs_b.bias", e.count))
    gate, up, down = _matrices(w, e, block, c.hidden)
    biases = [
        w.optional_biases(f"{block}ffn_{name}_exps.bias", e.count, matrix.rows)
        for name, matrix in (("gate", gate), ("up", up), ("down", down))
    ]
    graph.experts(h, routes, gate, up, down, x, biases, e.activation, shared, shared_gate)


def feed_forward_beside_experts(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """Compute x += norm(norm(feed-forward) + norm(experts)).

    The router's input has a norm of its own. A layer without experts has the feed-forward alone.
    """
    if not c.experts:
        feed_forward(graph, c, w, layer, x)
        return
    block, e = f"blk.{layer}.", c.experts

    def norm(name: str) -> NDArray[np.float32]:
        return w.vector(f"{block}{name}.weight", c.hidden)

    scores, dense, routed = graph.buffer(e.count), graph.buffer(c.hidden), graph.buffer(c.hidden)
    looks = w.vector(block + "ffn_gate_inp.scale", c.hidden) * np.float32(c.hidden**-0.5)
    graph.matmul(graph.norm(x, looks), w.matrix(block + "ffn_gate_inp.weight", e.count, c.hidden), scores)
    # Stands before the routing and so runs beside it.
    graph.matmul(*before_down(graph, c, w, layer, x), dense)
    routes = graph.route(scores, e.rule)
    h = graph.norm(x, norm("pre_ffw_norm_2"))
    graph.experts(h, routes, *_matrices(w, e, block, c.hidden), routed, activation=e.activation, add=False)
    both = graph.normalised(dense, norm("post_ffw_norm_1"))
    graph.add_normalised(routed, norm("post_ffw_norm_2"), both)
    add_to_residual(graph, c, w, layer, both, x)


def _matrices(w: Weights, e: Experts, block: str, hidden: int) -> tuple[Matrix, Matrix, Matrix]:
    """Gate, up and down of every expert; the first two of tensors of their own or of one that holds both."""
    down = w.experts(block + "ffn_down_exps.weight", e.count, hidden, e.feed_forward)
    if w.has(block + "ffn_gate_up_exps.weight"):
        both = w.stacked(block + "ffn_gate_up_exps.weight", (e.feed_forward, e.feed_forward), hidden, e.count)
        return both[0], both[1], down
    gate, up = (w.experts(f"{block}ffn_{name}_exps.weight", e.count, e.feed_forward, hidden) for name in ("gate", "up"))
    return gate, up, down
