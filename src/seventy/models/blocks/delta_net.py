"""Gated delta-nets (Yang et al. 2024), which remember a matrix for each head instead of keys and values."""

from collections.abc import Sequence

import numpy as np

from seventy.graph.buffers import Buffer
from seventy.graph.program import Program, RotaryTables
from seventy.graph.weights import Matrix, Weights
from seventy.models.blocks.attention import attention
from seventy.models.blocks.config import Config, DeltaNet


def delta_net_or_attention(graph: Program, c: Config, w: Weights, layer: int, tables: RotaryTables, x: Buffer) -> None:
    """Compute x += a delta-net if the layer is recurrent, else attention."""
    if c.delta_net and c.delta_net.layers[layer]:
        delta_net(graph, c, w, layer, x)
    else:
        attention(graph, c, w, layer, tables, x)


def delta_net(graph: Program, c: Config, w: Weights, layer: int, x: Buffer) -> None:
    """Compute x += the projected outputs of all heads' recurrent matrices for the normalised x.

    Queries, keys and values go through a short convolution first; queries and keys are then normalised to length 1.
    """
    assert c.delta_net is not None
    block, n, heads = f"blk.{layer}.", c.delta_net, c.delta_net.heads
    h = graph.norm(x, w.vector(block + "attn_norm.weight", c.hidden))
    inputs, gate, beta, decay = (graph.buffer(m) for m in (n.channels, n.inner, heads.values, heads.values))
    matrices = *_inputs_and_gate(w, n, block, c.hidden), *_beta_and_decay(w, n, block, c.hidden)
    for matrix, into in zip(matrices, (inputs, gate, beta, decay), strict=True):
        graph.matmul(h, matrix, into)
    convolved, answers = graph.buffer(n.channels), graph.buffer(n.inner)
    taps = w.taps(block + "ssm_conv1d.weight", n.channels, n.taps)
    graph.short_convolution(inputs, convolved, taps, layer, heads.dim, normalised=2 * heads.keys)
    rate_and_bias = w.vector(block + "ssm_a", heads.values), w.vector(block + "ssm_dt.bias", heads.values)
    norm = w.vector(block + "ssm_norm.weight", heads.dim)
    graph.delta_rule(convolved, decay, beta, gate, answers, layer, heads, rate_and_bias, norm)
    graph.matmul(graph.plain(answers), w.matrix(block + "ssm_out.weight", c.hidden, n.inner), x, add=True)


def _inputs_and_gate(w: Weights, n: DeltaNet, block: str, hidden: int) -> Sequence[Matrix]:
    """The matrices of all queries, then keys, then values, and of the gate; old files of Qwen3-Next mix their rows."""
    if not w.has(block + "ssm_in.weight"):
        sizes = {"attn_qkv": n.channels, "attn_gate": n.inner}
        return [w.matrix(f"{block}{name}.weight", rows, hidden) for name, rows in sizes.items()]
    dim, each = n.heads.dim, n.inner // n.heads.keys
    rows = np.arange(n.channels + n.inner).reshape(n.heads.keys, -1)
    *inputs, gate = np.split(rows, np.cumsum([dim, dim, each]), axis=1)
    order = np.concatenate([part.reshape(-1) for part in inputs])
    return w.picked(block + "ssm_in.weight", (order, gate.reshape(-1)), hidden)


def _beta_and_decay(w: Weights, n: DeltaNet, block: str, hidden: int) -> Sequence[Matrix]:
    """The matrices of one number each for every value head; Qwen3-Next has both in one, by key head."""
    values = n.heads.values
    if not w.has(block + "ssm_ba.weight"):
        return [w.matrix(f"{block}ssm_{name}.weight", values, hidden) for name in ("beta", "alpha")]
    beta, decay = np.split(np.arange(2 * values).reshape(n.heads.keys, -1), 2, axis=1)
    return w.picked(block + "ssm_ba.weight", (beta.reshape(-1), decay.reshape(-1)), hidden)
