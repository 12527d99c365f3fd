"""The qwen2 architecture: Qwen2, Qwen2.5 and its Coder, R1-Distill-Qwen; queries, keys and values have biases."""

from collections.abc import Mapping
from typing import Any

from seventy.models.blocks import dense
from seventy.models.blocks.dense import Config, build

__all__ = ["build", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return dense.read(metadata, "qwen2", interleaved=False)
