"""The decoder that most families share: an embedding, pre-norm blocks, a norm and a head (Touvron et al. 2023)."""

from collections.abc import Callable

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program, RotaryTables
from seventy.graph.weights import Weights
from seventy.models.blocks import multi_token
from seventy.models.blocks.attention import attention, rotary_tables
from seventy.models.blocks.config import Config
from seventy.models.blocks.per_layer import add_per_layer, per_layer_inputs

# Adds a block's attention to the rows: of (graph, config, weights, layer, tables, rows).
Attention = Callable[[Program, Config, Weights, int, RotaryTables, Buffer], None]
# Adds a block's feed-forward to the rows: of (graph, config, weights, layer, rows).
FeedForward = Callable[[Program, Config, Weights, int, Buffer], None]


def build(graph: Program, c: Config, w: Weights, feed_forward: FeedForward, attention: Attention = attention) -> None:
    """Write the program of a whole model; the head is the embedding where the file has no other."""
    # Named first: a file whose embedding and vocabulary disagree has nothing else to say.
    embedding = w.matrix("token_embd.weight", c.vocabulary, c.hidden)
    tables = rotary_tables(graph, c, w)
    x = graph.buffer(c.hidden)
    graph.embed(embedding, x, c.embedding_scale)
    inputs = per_layer_inputs(graph, c, w, x) if c.per_layer else None
    for layer in range(c.layers):
        attention(graph, c, w, layer, tables[layer], x)
        feed_forward(graph, c, w, layer, x)
        if inputs:
            add_per_layer(graph, c, w, layer, inputs, x)
    h = graph.norm(x, w.vector(f"{c.final_norm}.weight", c.hidden), outputs_only=True)
    logits = graph.buffer(c.vocabulary, outputs=True)
    head = w.matrix("output.weight", c.vocabulary, c.hidden) if w.has("output.weight") else embedding
    graph.matmul(h, head, logits)
    if c.logit_cap:
        graph.cap(logits, c.logit_cap)
    graph.result(x, logits)
    if c.predicts:
        multi_token.keep(graph, c, w, x)
        graph.end_of_step()

        def block(layer: int, x: Buffer) -> None:
            attention(graph, c, w, layer, tables[layer], x)
            feed_forward(graph, c, w, layer, x)

        multi_token.predict(graph, c, w, (embedding, head), block)
