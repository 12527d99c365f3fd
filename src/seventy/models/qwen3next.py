"""The qwen3next architecture: Qwen3-Next and Qwen3-Coder-Next 80B-A3B; Qwen3.5's layers, value heads by key head."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.delta_net import delta_net_or_attention
from seventy.models.blocks.experts import experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return read(
        metadata,
        "qwen3next",
        interleaved=False,
        query_norm="head",
        feed_forward_norm="post_attention_norm",
        experts=Mixture(shared_gate=True),
        tiled_heads=False,
        gated=True,
    )


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, experts, delta_net_or_attention)
