"""The qwen3 architecture, dense: an RMSNorm of each head of queries and keys instead of biases."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, caches, read
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return read(metadata, "qwen3", interleaved=False, query_norm="head")


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward)
