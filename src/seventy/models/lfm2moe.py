"""The lfm2moe architecture: LFM2-8B-A1B and 24B-A2B, whose layers behind the first ones have experts."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import convolution, transformer
from seventy.models.blocks.config import Config, Mixture, caches
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return convolution.read(metadata, "lfm2moe", Mixture(scoring="sigmoid"))


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward_or_experts, convolution.convolution_or_attention)
