"""The qwen35moe architecture: Qwen3.5 and Qwen3.6 with experts, 35B-A3B, 122B-A10B and 397B-A17B."""

from functools import partial

from seventy.models import qwen35
from seventy.models.blocks import transformer
from seventy.models.blocks.config import Mixture, caches
from seventy.models.blocks.delta_net import delta_net_or_attention
from seventy.models.blocks.experts import experts

__all__ = ["build", "caches", "config"]

config = partial(qwen35.config, architecture="qwen35moe", experts=Mixture(shared_gate=True))
build = partial(transformer.build, feed_forward=experts, attention=delta_net_or_attention)
