"""Embeddings of each layer (Gemma 3n and 4, Google 2025): a token's own numbers enter the rows behind every layer."""

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program
from seventy.graph.weights import STAYS_IN_FILE, Weights
from seventy.models.blocks.config import Config
from seventy.models.blocks.feed_forward import layer_factor


def per_layer_inputs(graph: Program, c: Config, w: Weights, x: Buffer) -> tuple[Buffer, Buffer]:
    """Compute, for all layers side by side, the rows of the per-layer token table and a projection of x.

    The table is as large as the rest of the model and stays in the file: a step reads its tokens' rows.
    """
    columns = c.per_layer * c.layers
    tokens, projected = graph.buffer(columns), graph.buffer(columns)
    graph.embed_from_file(w.table(STAYS_IN_FILE, c.vocabulary, columns), tokens)
    graph.matmul(graph.plain(x), w.matrix("per_layer_model_proj.weight", columns, c.hidden), projected)
    return tokens, projected


def add_per_layer(graph: Program, c: Config, w: Weights, layer: int, inputs: tuple[Buffer, Buffer], x: Buffer) -> None:
    """Compute x += norm(proj(gelu(gate x) * the layer's input)), then scale x by the layer's factor, if any."""
    block, width = c.block(layer), c.per_layer
    norm = w.vector("per_layer_proj_norm.weight", width)
    # Stands before the product and so runs beside it.
    own = graph.mixed(*inputs, layer * width, norm, (width**0.5, c.hidden**-0.5))
    gate, product = graph.buffer(width), graph.buffer(c.hidden)
    graph.matmul(graph.plain(x), w.matrix(block + "inp_gate.weight", width, c.hidden), gate)
    graph.matmul(graph.gated(gate, own, "geglu"), w.matrix(block + "proj.weight", c.hidden, width), product)
    graph.add_normalised(product, w.vector(block + "post_norm.weight", c.hidden), x, layer_factor(w, block))
