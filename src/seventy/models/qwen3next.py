"""The qwen3next architecture: Qwen3-Next and Qwen3-Coder-Next 80B-A3B; Qwen3.5's layers, value heads by key head."""

from functools import partial

from seventy.models import qwen35
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Mixture, caches
from seventy.models.blocks.delta_net import delta_net_or_attention
from seventy.models.blocks.experts import experts

__all__ = ["build", "caches", "config"]

config = partial(qwen35.config, architecture="qwen3next", experts=Mixture(shared_gate=True), tiled_heads=False)
build = partial(transformer.build, feed_forward=experts, attention=delta_net_or_attention)
