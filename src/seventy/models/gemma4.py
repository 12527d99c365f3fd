"""The gemma4 architecture: Gemma 4 12B, 31B and 26B-A4B, whose experts stand beside a feed-forward.

Layers with a window and those without have heads of two sizes. Values are normalised, and are the keys where a layer
has no matrix for them; scores are not scaled. Otherwise it is as Gemma 3 is.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from seventy.errors import SeventyError
from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_beside_experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    if metadata.get("gemma4.attention.shared_kv_layers") or metadata.get("gemma4.embedding_length_per_layer_input"):
        raise SeventyError(
            "this gemma4 model has layers that share keys and values or embeddings of each layer (E2B and E4B), which "
            "this engine does not do yet; take Gemma 4 12B, 26B-A4B or 31B"
        )
    mixture = Mixture(activation="geglu", beside=True) if metadata.get("gemma4.expert_count") else None
    c = read(
        metadata,
        "gemma4",
        interleaved=False,
        query_norm="head",
        experts=mixture,
        window_period=6,
        shape_by_window=True,
    )
    return replace(
        c,
        embedding_scale=c.hidden**0.5,
        attention_scale=1.0,
        post_norms=True,
        value_norm=True,
        activation="geglu",
    )


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward_beside_experts)
