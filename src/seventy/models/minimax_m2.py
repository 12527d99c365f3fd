"""The minimax-m2 architecture: MiniMax M2 to M2.7; queries and keys are normalised over all heads."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    mixture = Mixture(scoring="sigmoid")
    return read(metadata, "minimax-m2", interleaved=False, query_norm="row", experts=mixture)


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward_or_experts)
