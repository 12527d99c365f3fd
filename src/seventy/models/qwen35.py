"""The qwen35 architecture, dense: Qwen3.5 and Qwen3.6; three gated delta-nets, then one gated attention."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, caches, read
from seventy.models.blocks.delta_net import delta_net_or_attention
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return read(
        metadata,
        "qwen35",
        interleaved=False,
        query_norm="head",
        feed_forward_norm="post_attention_norm",
        tiled_heads=True,
        gated=True,
    )


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward, delta_net_or_attention)
