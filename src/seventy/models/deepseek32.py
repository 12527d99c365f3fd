"""The deepseek32 architecture: DeepSeek V3.2, up to the context from which on its indexer leaves keys out."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture
from seventy.models.blocks.experts import feed_forward_or_experts
from seventy.models.blocks.latent_attention import caches, latent_attention, read

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return read(metadata, "deepseek32", Mixture(by_file=True), indexed=True)


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward_or_experts, latent_attention)
