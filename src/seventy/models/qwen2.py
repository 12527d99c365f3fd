"""The qwen2 architecture: Qwen2, Qwen2.5 and its Coder, R1-Distill-Qwen; queries, keys and values have biases."""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import caches, read
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]

config = partial(read, architecture="qwen2", interleaved=False)
build = partial(transformer.build, feed_forward=feed_forward)
