"""The llama architecture: Llama 1 to 3.x, Mistral, SmolLM, R1-Distill-Llama and others that declare it."""

from collections.abc import Mapping
from typing import Any

from seventy.models.blocks import dense
from seventy.models.blocks.dense import Config, build

__all__ = ["build", "config"]


def config(metadata: Mapping[str, Any]) -> Config:
    return dense.read(metadata, "llama", interleaved=True)
