"""The glm4moe architecture: GLM-4.5-Air, GLM-4.5 to 4.7; a shared expert, and first layers without experts."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return read(
        metadata,
        "glm4moe",
        interleaved=False,
        query_norm="head if present",
        feed_forward_norm="post_attention_norm",
        experts=Mixture(scoring="sigmoid", by_file=True),
    )


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward_or_experts)
