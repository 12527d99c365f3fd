"""The deepseek2 architecture: DeepSeek V2, V3, R1, Kimi K2, GLM-4.7-Flash; latent attention, experts, a shared one."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from seventy.models.blocks import transformer
from seventy.models.blocks.config import Config, Mixture
from seventy.models.blocks.experts import feed_forward_or_experts
from seventy.models.blocks.latent_attention import caches, latent_attention, read

__all__ = ["build", "caches", "config"]

# GLM-4.7-Flash's files do not always say that its router has sigmoids: its layers and tokens do.
_FLASH_LAYERS, _FLASH_TOKENS = (47, 48), 154880


def config(metadata: Mapping[str, Any]) -> Config:
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    flash = metadata.get("deepseek2.block_count") in _FLASH_LAYERS and len(tokens) == _FLASH_TOKENS
    return read(metadata, "deepseek2", Mixture("sigmoid" if flash else "softmax", by_file=True))


build = partial(transformer.build, feed_forward=feed_forward_or_experts, attention=latent_attention)
