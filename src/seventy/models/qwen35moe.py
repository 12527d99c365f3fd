"""The qwen35moe architecture: Qwen3.5 and Qwen3.6 with experts, 35B-A3B, 122B-A10B and 397B-A17B."""

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
        "qwen35moe",
        interleaved=False,
        query_norm="head",
        feed_forward_norm="post_attention_norm",
        experts=Mixture(shared_gate=True),
        tiled_heads=True,
        gated=True,
    )


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, experts, delta_net_or_attention)
