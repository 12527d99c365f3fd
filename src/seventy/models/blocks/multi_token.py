"""Multi-token prediction (DeepSeek-AI 2024): one more block expects the token after the next, to draft with.

It reads the embedding of a token beside what the model made of the token before it, h, and is a layer of the model's
kind with keys and values of its own. What it gives expects the next token, and is the h of the next guess.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from seventy.errors import SeventyError
from seventy.graph.buffers import Buffer
from seventy.graph.program import Program
from seventy.graph.weights import Matrix, Weights
from seventy.models.blocks.config import Config

# Of a file's tensors the one that says that the block is there.
PROJECTION = "blk.{}.nextn.eh_proj.weight"
Layer = Callable[[int, Buffer], None]


def has_block(c: Config, tensors: Collection[str]) -> bool:
    """Return whether a file has the tensors of the model's first multi-token block; some only declare it."""
    return c.further_blocks > 0 and PROJECTION.format(c.layers) in tensors


def refuse_alone(c: Config, tensors: Collection[str], path: object) -> None:
    """Raise SeventyError for a file that has such a block but not the model it belongs to."""
    if has_block(c, tensors) and "blk.0.attn_norm.weight" not in tensors:
        raise SeventyError(
            "{path} holds a model's block of multi-token prediction alone, not the model; take a file that has both, "
            "which --draft auto and --draft mtp then draft with",
            path=path,
        )


def with_block(c: Config) -> Config:
    """Return the config of a model with its first multi-token block, which is built like the last layers."""
    recurrent = c.delta_net and replace(c.delta_net, layers=(*c.delta_net.layers, False))
    return replace(
        c,
        predicts=True,
        shapes=(*c.shapes, c.shapes[-1]),
        windows=(*c.windows, None),
        feed_forward=(*c.feed_forward, c.feed_forward[-1]),
        delta_net=recurrent,
    )


def keep(graph: Program, c: Config, w: Weights, x: Buffer) -> None:
    """Store the final hidden states of the rows, normalised as the head's input."""
    graph.keep(x, w.vector(f"{c.final_norm}.weight", c.hidden))


def predict(graph: Program, c: Config, w: Weights, head: tuple[Matrix, Matrix], layer: Layer) -> None:
    """Write the block's program, behind the model's: `layer` adds what block c.layers does; `head` has the embedding
    and the matrix of logits.
    """
    block = f"blk.{c.layers}.nextn."
    embedding, output = (
        w.matrix(f"{block}{name}.weight", c.vocabulary, c.hidden) if w.has(f"{block}{name}.weight") else usual
        for name, usual in zip(("embed_tokens", "shared_head_head"), head, strict=True)
    )
    tokens, x = graph.buffer(c.hidden), graph.buffer(c.hidden)
    graph.embed(embedding, tokens, c.embedding_scale)
    norms = w.vector(f"{block}enorm.weight", c.hidden), w.vector(f"{block}hnorm.weight", c.hidden)
    joined = graph.join(tokens, norms)
    graph.matmul(graph.plain(joined), w.matrix(f"{block}eh_proj.weight", c.hidden, 2 * c.hidden), x)
    layer(c.layers, x)
    own = f"{block}shared_head_norm.weight"
    norm = w.vector(own if w.has(own) else f"{c.final_norm}.weight", c.hidden)
    graph.keep(x, norm, outputs_only=True)
    graph.expect(graph.norm(x, norm, outputs_only=True), output)
