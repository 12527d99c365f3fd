"""The phi3 architecture: Phi-3, Phi-3.5, Phi-4 and Phi-4-mini; Llama's blocks, with a window in all layers or none.

Queries, keys and values are one matrix, and so are gate and up.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from seventy.models.blocks import transformer
from seventy.models.blocks.config import EVERY_LAYER, Config, caches, read
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return replace(read(metadata, "phi3", interleaved=False, window_period=EVERY_LAYER), fused_gate=True)


build = partial(transformer.build, feed_forward=feed_forward)
