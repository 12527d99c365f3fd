"""The glm4moe architecture: GLM-4.5-Air, GLM-4.5 to 4.7; a shared expert, and first layers without experts."""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]

config = partial(
    read,
    architecture="glm4moe",
    interleaved=False,
    query_norm="head if present",
    feed_forward_norm="post_attention_norm",
    experts=Mixture(scoring="sigmoid", by_file=True),
)
build = partial(transformer.build, feed_forward=feed_forward_or_experts)
