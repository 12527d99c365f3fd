"""The llama architecture: Llama 1 to 3.x, Mistral, SmolLM, R1-Distill-Llama and others that declare it."""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, caches, read
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return read(metadata, "llama", interleaved=True)


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, feed_forward)
