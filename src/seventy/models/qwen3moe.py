"""The qwen3moe architecture: Qwen3's blocks with a mixture of experts; Qwen3-30B-A3B and its Coder, 235B-A22B."""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]

config = partial(read, architecture="qwen3moe", interleaved=False, query_norm="head", experts=Mixture())
build = partial(transformer.build, feed_forward=feed_forward_or_experts)
