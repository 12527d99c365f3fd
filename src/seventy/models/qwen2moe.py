"""The qwen2moe architecture: Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B; a shared expert, of which each row takes a part."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    # Older files do not say how wide the shared expert is: as a feed-forward would be.
    width = {"qwen2moe.expert_shared_feed_forward_length": metadata.get("qwen2moe.feed_forward_length")}
    mixture = Mixture(normalise=False, shared_gate=True)
    return read(width | dict(metadata), "qwen2moe", interleaved=False, experts=mixture)


build = partial(transformer.build, feed_forward=feed_forward_or_experts)
