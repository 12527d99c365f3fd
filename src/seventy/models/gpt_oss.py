"""The gpt-oss architecture: gpt-oss-20b and 120b.

A mixture of experts whose even layers see a window of positions only. Every head has a sink, every matrix a bias, the
router weighs those it chose by their softmax, and the experts' SwiGLU is clamped.
"""

from collections.abc import Mapping
from typing import Any

from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    mixture = Mixture("softmax of the chosen", normalise=False, activation="clamped_swiglu")
    return read(
        metadata,
        "gpt-oss",
        interleaved=False,
        feed_forward_norm="post_attention_norm",
        experts=mixture,
        window_period=2,
    )


def build(graph: Program, config: Config, weights: Weights) -> None:
    transformer.build(graph, config, weights, experts)
