"""The llama architecture: Llama 1 to 3.x, Mistral, Mixtral, SmolLM, R1-Distill-Llama and others that declare it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    if not metadata.get("llama.expert_count"):
        return read(metadata, "llama", interleaved=True)
    # Mixtral's experts are as wide as its feed-forward would be.
    width = {"llama.expert_feed_forward_length": metadata.get("llama.feed_forward_length")}
    return read(width | dict(metadata), "llama", interleaved=True, experts=Mixture())


build = partial(transformer.build, feed_forward=feed_forward_or_experts)
