"""The qwen35 architecture, dense: Qwen3.5 and Qwen3.6; three gated delta-nets, then one gated attention."""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import caches, read
from seventy.models.blocks.delta_net import delta_net_or_attention
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]

config = partial(
    read,
    architecture="qwen35",
    interleaved=False,
    query_norm="head",
    feed_forward_norm="post_attention_norm",
    tiled_heads=True,
    gated=True,
)
build = partial(transformer.build, feed_forward=feed_forward, attention=delta_net_or_attention)
