"""The gemma4-assistant architecture: a small model in a file of its own that drafts for one of Gemma 4.

It has no keys and values: each of its layers attends to those of the last layer of the model with keys of its own that
sees as far. It takes in a token's embedding in the model beside what the model made of the token before it, and gives
logits and, as wide as the model's rows, what takes that place for the next guess. All guesses of a step are made as at
the position of the first: nothing of them is remembered (Google, Gemma 4 Multi-Token Prediction, 2026).
"""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from seventy.errors import SeventyError
from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.language import t
from seventy.models.blocks.attention import attention, rotary_tables
from seventy.models.blocks.config import Config, read
from seventy.models.blocks.feed_forward import feed_forward
from seventy.models.blocks.metadata import Metadata

NAME = "gemma4-assistant"
# What the names of its tensors begin with beside the model's (gguf/joined.py).
PREFIX = "assistant."


def config(metadata: Mapping[str, Any]) -> Config:
    """Raise SeventyError: it cannot run without the model that it drafts for."""
    raise SeventyError(
        "this file does not write texts: it drafts for a model of Gemma 4; name that model, and this file with --draft"
    )


def numbers(metadata: Mapping[str, Any]) -> Config:
    """Return its own numbers."""
    m = Metadata(metadata, NAME)
    # The file calls all its blocks so.
    named = ChainMap({f"{NAME}.nextn_predict_layers": 0}, metadata)  # type: ignore[arg-type]
    c = read(named, NAME, interleaved=False, query_norm="head", window_period=6, shape_by_window=True)
    return replace(
        c,
        attention_scale=1.0,
        post_norms=True,
        activation="geglu",
        prefix=PREFIX,
        backbone=m.integer("embedding_length_out", 16, 1 << 17),
    )


def beside(model: Config, metadata: Mapping[str, Any], draft: Mapping[str, Any]) -> Config:
    """Return a model's numbers with those of the file that drafts for it; both files' metadata are given.

    Raises SeventyError where that file is not for this model.
    """
    architecture = metadata.get("general.architecture")
    if architecture != "gemma4":
        raise SeventyError("it drafts for Gemma 4, and this is a model of {architecture}", architecture=architecture)
    own = numbers(draft)
    attends = []
    for layer, window in enumerate(own.windows):
        known = [each for each in range(model.layers - model.shared_kv) if model.windows[each] == window]
        ours, theirs = own.shapes[layer], model.shapes[known[-1]] if known else None
        if theirs is None or ours.head_dim != theirs.head_dim or window == 1:
            seen = t("a window of {window} positions", window=window) if window else t("all positions")
            raise SeventyError(
                "it attends to heads of {head_dim} that see {seen} (its layer {layer}), and the model has none",
                head_dim=ours.head_dim, seen=seen, layer=layer,
            )
        if own.heads % theirs.kv_heads:
            raise SeventyError(
                "its {heads} heads do not share the model's {kv_heads} of keys and values",
                heads=own.heads, kv_heads=theirs.kv_heads,
            )
        attends.append(known[-1])
    if own.backbone != model.hidden:
        raise SeventyError(
            "it is for models {backbone} wide, and this one is {hidden} wide",
            backbone=own.backbone, hidden=model.hidden,
        )
    tokens, known_tokens = (list(each.get("tokenizer.ggml.tokens") or ()) for each in (draft, metadata))
    if own.vocabulary != model.vocabulary or tokens != known_tokens:
        raise SeventyError(
            "its {vocabulary} tokens are not the {vocabulary_2} of the model",
            vocabulary=own.vocabulary, vocabulary_2=model.vocabulary,
        )
    return replace(model, assistant=replace(own, attends=tuple(attends)))


def draft(graph: Program, c: Config, w: Weights) -> None:
    """Write its program, behind that of the model with these numbers."""
    own = c.assistant
    assert own is not None and graph.hidden is not None
    graph.keep(graph.hidden, w.vector(f"{c.final_norm}.weight", c.hidden))
    graph.end_of_step()
    tokens, x = graph.buffer(c.hidden), graph.buffer(own.hidden)
    graph.embed(w.matrix("token_embd.weight", c.vocabulary, c.hidden), tokens, c.embedding_scale)
    before = w.matrix(f"{PREFIX}nextn.pre_projection.weight", own.hidden, 2 * c.hidden)
    graph.matmul(graph.plain(graph.join(tokens)), before, x)
    tables = rotary_tables(graph, own, w)
    for layer in range(own.layers):
        attention(graph, own, w, layer, tables[layer], x)
        feed_forward(graph, own, w, layer, x)
    norm, after = w.vector(f"{PREFIX}output_norm.weight", own.hidden), graph.buffer(c.hidden)
    matrix = w.matrix(f"{PREFIX}nextn.post_projection.weight", c.hidden, own.hidden)
    graph.matmul(graph.norm(x, norm), matrix, after)
    graph.keep(after)
    head = w.matrix(f"{PREFIX}token_embd.weight", own.vocabulary, own.hidden)
    graph.expect(graph.norm(x, norm, outputs_only=True), head)
