"""The lfm2 architecture: LFM2 and LFM2.5 from 350M to 2.6B; gated short convolutions, and attention in some layers."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import convolution, transformer
from seventy.models.blocks.config import Config, caches
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return convolution.read(metadata, "lfm2")


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward, convolution.convolution_or_attention)
