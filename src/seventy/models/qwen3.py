"""The qwen3 architecture, dense: an RMSNorm of each head of queries and keys instead of biases."""

from collections.abc import Mapping
from typing import Any

from seventy.models.blocks import dense
from seventy.models.blocks.dense import Config, build

__all__ = ["build", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return dense.read(metadata, "qwen3", interleaved=False, head_norms=True)
