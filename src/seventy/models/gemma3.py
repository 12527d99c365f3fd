"""The gemma3 architecture: Gemma 3 from 270M to 27B, MedGemma and others of its kind.

Of six layers five see a window of positions only, and their heads turn by a base of their own. There is a norm before
and after each block, GELU instead of SiLU, and embeddings are multiplied by the root of their width.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, caches, read
from seventy.models.blocks.feed_forward import feed_forward

__all__ = ["build", "caches", "config"]

# Of all sizes, the one of so many layers, 27B, scales scores by what each head has of the embedding's width.
_LAYERS_OF_27B = 62


def config(metadata: Mapping[str, Any]) -> Config:
    c = read(metadata, "gemma3", interleaved=False, query_norm="head", window_period=6, shape_by_window=True)
    return replace(
        c,
        embedding_scale=c.hidden**0.5,
        attention_scale=(c.hidden // c.heads) ** -0.5 if c.layers == _LAYERS_OF_27B else None,
        post_norms=True,
        activation="geglu",
    )


build = partial(transformer.build, feed_forward=feed_forward)
