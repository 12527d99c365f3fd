"""The lfm2moe architecture: LFM2-8B-A1B and 24B-A2B, whose layers behind the first ones have experts."""

from functools import partial

from seventy.models.blocks import convolution, transformer
from seventy.models.blocks.config import Mixture, caches
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]

config = partial(convolution.read, architecture="lfm2moe", experts=Mixture(scoring="sigmoid"))
build = partial(transformer.build, feed_forward=feed_forward_or_experts, attention=convolution.convolution_or_attention)
