"""The gpt-oss architecture: gpt-oss-20b and 120b.

A mixture of experts whose even layers see a window of positions only. Every head has a sink, every matrix a bias, the
router weighs those it chose by their softmax, and the experts' SwiGLU is clamped.
"""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Mixture, caches, read
from seventy.models.blocks.experts import experts

__all__ = ["build", "caches", "config"]

config = partial(
    read,
    architecture="gpt-oss",
    interleaved=False,
    feed_forward_norm="post_attention_norm",
    experts=Mixture("softmax of the chosen", normalise=False, activation="clamped_swiglu"),
    window_period=2,
)
build = partial(transformer.build, feed_forward=experts)
