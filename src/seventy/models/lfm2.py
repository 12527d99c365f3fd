"""The lfm2 architecture: LFM2 and LFM2.5 from 350M to 2.6B; gated short convolutions, and attention in some layers."""

from functools import partial

from seventy.models.blocks import convolution, transformer
from seventy.models.blocks.config import caches
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]

config = partial(convolution.read, architecture="lfm2")
build = partial(transformer.build, feed_forward=feed_forward, attention=convolution.convolution_or_attention)
