"""The gemma4 architecture: Gemma 4 E2B, E4B, 12B, 31B and 26B-A4B, whose experts stand beside a feed-forward.

Layers with a window and those without have heads of two sizes. Values are normalised, and are the keys where a layer
has no matrix for them; scores are not scaled. The last layers of E2B and E4B attend to what others remember, and behind
each layer come numbers of the token's own. Otherwise it is as Gemma 3 is.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from seventy.errors import SeventyError
from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models import gemma4_assistant
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_beside_experts
from seventy.models.blocks.metadata import Metadata

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    m = Metadata(metadata, "gemma4")
    mixture = Mixture(activation="geglu", beside=True) if m.raw("expert_count") else None
    c = read(
        metadata,
        "gemma4",
        interleaved=False,
        query_norm="head",
        experts=mixture,
        window_period=6,
        shape_by_window=True,
    )
    shared = m.integer("attention.shared_kv_layers", 0, c.layers - 1, default=0)
    windowed = [window is not None for window in c.windows]
    if not set(windowed[c.layers - shared :]) <= set(windowed[: c.layers - shared]):
        raise SeventyError(
            "the last {shared} of the model's {layers} layers attend to what layers before them remember, and none "
            "of those has a window, or none has none, as they do; that cannot be: get the file again",
            shared=shared, layers=c.layers,
        )
    return replace(
        c,
        embedding_scale=c.hidden**0.5,
        attention_scale=1.0,
        post_norms=True,
        value_norm=True,
        activation="geglu",
        shared_kv=shared,
        per_layer=m.integer("embedding_length_per_layer_input", 0, 1 << 16, default=0),
    )


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward_beside_experts)
    if config.assistant:
        gemma4_assistant.draft(graph, config, weights)
