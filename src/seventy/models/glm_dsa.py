"""The glm-dsa architecture: GLM-5 to 5.2, up to the context from which on its indexer leaves keys out."""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Mixture
from seventy.models.blocks.experts import feed_forward_or_experts
from seventy.models.blocks.latent_attention import caches, latent_attention, read

__all__ = ["build", "caches", "config"]

config = partial(read, architecture="glm-dsa", experts=Mixture("sigmoid", by_file=True), indexed=True)
build = partial(transformer.build, feed_forward=feed_forward_or_experts, attention=latent_attention)
