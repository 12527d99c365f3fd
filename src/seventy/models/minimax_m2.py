"""The minimax-m2 architecture: MiniMax M2 to M2.7; queries and keys are normalised over all heads."""

from functools import partial

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Mixture, caches, read
from seventy.models.blocks.experts import feed_forward_or_experts

__all__ = ["build", "caches", "config"]

config = partial(
    read, architecture="minimax-m2", interleaved=False, query_norm="row", experts=Mixture(scoring="sigmoid")
)
build = partial(transformer.build, feed_forward=feed_forward_or_experts)
