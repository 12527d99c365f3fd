"""The deepseek32 architecture: DeepSeek V3.2, up to the context from which on its indexer leaves keys out."""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Mixture
from seventy.models.blocks.experts import feed_forward_or_experts
from seventy.models.blocks.latent_attention import caches, latent_attention, read

__all__ = ["build", "caches", "config"]

config = partial(read, architecture="deepseek32", experts=Mixture(by_file=True), indexed=True)
build = partial(transformer.build, feed_forward=feed_forward_or_experts, attention=latent_attention)
