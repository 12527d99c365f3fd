"""The mistral3 architecture: Ministral 3; Llama's blocks, and scores that grow with the position."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    mixture = Mixture() if metadata.get("mistral3.expert_count") else None
    # Experts are as wide as a feed-forward would be.
    width = {"mistral3.expert_feed_forward_length": metadata.get("mistral3.feed_forward_length")}
    return read(width | dict(metadata), "mistral3", interleaved=True, experts=mixture, temperature=True)


build = partial(transformer.build, feed_forward=feed_forward_or_experts)
