"""The qwen3 architecture, dense: an RMSNorm of each head of queries and keys instead of biases."""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import caches, read
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]

config = partial(read, architecture="qwen3", interleaved=False, query_norm="head")
build = partial(transformer.build, feed_forward=feed_forward)
