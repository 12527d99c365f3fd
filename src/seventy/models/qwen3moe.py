"""The qwen3moe architecture: Qwen3's blocks with a mixture of experts; Qwen3-30B-A3B and its Coder, 235B-A22B."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return read(metadata, "qwen3moe", interleaved=False, query_norm="head", experts=Mixture())


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward_or_experts)
