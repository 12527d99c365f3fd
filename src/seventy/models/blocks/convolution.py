"""Gated short convolutions (LFM2, Liquid AI 2025), which remember the last rows they saw instead of keys and values."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program, RotaryTables
from seventy.graph.weights import Weights
from seventy.models.blocks import config
from seventy.models.blocks.attention import attention
from seventy.models.blocks.config import Config, Mixture


def read(metadata: Mapping[str, Any], architecture: str, experts: Mixture | None = None) -> Config:
    """Read the numbers of a model of these layers. Raises SeventyError as config.read does."""
    c = config.read(
        metadata,
        architecture,
        interleaved=False,
        query_norm="head",
        experts=experts,
        window_period=config.EVERY_LAYER,
        convolutions=True,
    )
    return replace(c, final_norm="token_embd_norm")


def convolution_or_attention(
    graph: Program, c: Config, w: Weights, layer: int, tables: RotaryTables, x: Buffer
) -> None:
    """Compute x += a convolution if the layer has no heads of keys and values, else attention."""
    if c.convolution and c.convolution.layers[layer]:
        convolution(graph, c, w, layer, x)
    else:
        attention(graph, c, w, layer, tables, x)


def convolution(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """Compute x += projection(after * convolution(before * u)); the normalised x gives before, after and u."""
    assert c.convolution is not None
    block, channels = f"blk.{layer}.shortconv.", c.convolution.channels
    h = graph.norm(x, w.vector(f"blk.{layer}.attn_norm.weight", c.hidden))
    before, after, u, convolved = (graph.buffer(channels) for _ in range(4))
    for matrix, into in zip(
        w.stacked(block + "in_proj.weight", (channels,) * 3, c.hidden), (before, after, u), strict=True
    ):
        graph.matmul(h, matrix, into)
    graph.gated_convolution(
        u, before, after, convolved, w.taps(block + "conv.weight", channels, c.convolution.taps), layer
    )
    graph.matmul(graph.plain(convolved), w.matrix(block + "out_proj.weight", c.hidden, channels), x, add=True)
