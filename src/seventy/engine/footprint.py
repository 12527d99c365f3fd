"""A model file's sizes for the account of memory (runtime/memory.py); nothing is loaded for it."""

import contextlib
import os
from collections.abc import Iterable, Sequence

from seventy.cache.pages import paged, shared_by
from seventy.cache.spec import CacheSpec, HiddenStates, Paged, Recurrent
from seventy.engine.model_file import open_model
from seventy.gguf.source import Source
from seventy.graph.weights import one_row_bytes, packed_bytes, transposed_bytes
from seventy.models.blocks.config import Config
from seventy.models.blocks.experts import SHARED_GATE
from seventy.runtime.memory import (
    LEAST_CONTEXT,
    LEAST_STATES,
    MAX_MIXTURE_ROWS,
    MAX_ROWS,
    MOST_CONTEXT,
    Footprint,
    row_columns,
)


def footprint(source: Source, config: Config, specs: Sequence[CacheSpec], kv: str = "f16") -> Footprint:
    """Compute the memory footprint of a model file. Raises SeventyError if a tensor has an unsupported type."""
    every, shared = paged(specs).values(), shared_by(specs)
    pages, blocks = ([spec for spec in every if spec.predicts == predicts] for predicts in (False, True))
    recurrent = [spec for spec in specs if isinstance(spec, Recurrent)]

    def position_bytes(of: Iterable[Paged], windows: bool) -> int:
        return sum(spec.position_bytes(kv) for spec in of if (spec.window is not None) == windows)

    return Footprint(
        weights=_weights(source, config),
        position_bytes=position_bytes(pages, windows=False),
        draft_bytes=position_bytes(blocks, windows=False)
        + sum(spec.position_bytes() for spec in specs if isinstance(spec, HiddenStates)),
        columns=_columns(config),
        vocabulary=config.vocabulary,
        context=config.context,
        state_bytes=sum(spec.nbytes for spec in recurrent),
        state_log_bytes=sum(spec.log_bytes for spec in recurrent),
        window=max((spec.window for spec in pages if spec.window), default=0),
        window_bytes=position_bytes(pages, windows=True),
        shared_bytes=position_bytes(shared, windows=False),
        shared_window_bytes=position_bytes(shared, windows=True),
        max_rows=MAX_MIXTURE_ROWS if config.experts else MAX_ROWS,
    )


def _weights(source: Source, c: Config) -> int:
    """Bytes of the tensors that run, as they are kept."""
    tensors = [info for info in source.tensors.values() if c.runs(info.name)]
    # The gate of a shared expert is a vector, kept as a matrix.
    weights = sum(one_row_bytes(i) if i.name.endswith(SHARED_GATE) else packed_bytes(i) for i in tensors)
    if c.latent:
        # Old files of latent attention have one matrix for what the engine keeps as two, one of them transposed.
        n, old = c.latent, (info for info in tensors if info.name.endswith(".attn_kv_b.weight"))
        weights += sum(transposed_bytes(info, c.heads, n.nope, n.rank) for info in old)
    return weights


def _columns(c: Config) -> int:
    """Numbers that a row of a step has in buffers."""
    queries = c.heads * max(shape.head_dim for shape in c.shapes) * (2 if c.gated else 1)
    if c.delta_net:
        # Inputs twice, the gate, and what is made of them, as floats and as an input: in place of queries, which are
        # counted three times.
        queries = max(queries, c.delta_net.channels + c.delta_net.inner)
    if c.convolution:
        # Three inputs, what is made of them, and that as an input.
        queries = max(queries, 2 * c.convolution.channels)
    keys = max(shape.kv_heads * shape.head_dim for shape in c.shapes)
    experts = (c.experts.count, c.experts.rule.used, c.experts.feed_forward) if c.experts else ()
    width = max(*c.feed_forward, c.experts.shared if c.experts else 0)
    columns = row_columns(c.hidden, queries, keys, width, *experts)
    if c.post_norms:
        # What attention or the feed-forward gave, before it is added; beside experts three times.
        columns += c.hidden * (3 if experts else 1)
    if c.assistant:
        # And its own rows.
        columns += _columns(c.assistant)
    if c.predicts or c.assistant:
        # Two inputs of the block side by side, as floats and as an input, and what is made of them.
        columns += 5 * c.hidden
    # Of all layers' embeddings what the file has, as panels, too, and as floats; and what is made of the rows.
    return columns + 4 * c.per_layer * c.layers


def least_and_full(
    path: str | os.PathLike[str],
    context: int | None = None,
    sequences: int = 1,
    kv: str = "f16",
    mtp: bool = False,
    assistant: str | os.PathLike[str] | None = None,
) -> tuple[int, int]:
    """Return the bytes a model needs with a cache for the shortest text it may be loaded for, and for one full text.

    With `context` both are the same. Otherwise the shortest has LEAST_CONTEXT tokens and a full one MOST_CONTEXT, or
    the model's own context if that is less. `mtp` includes the block of multi-token prediction, if there is one. Raises
    SeventyError for a file that cannot be used.
    """
    with contextlib.ExitStack() as files:
        source, architecture, config = open_model(files, path, mtp, assistant)
        sizes = footprint(source, config, architecture.caches(config), kv)
    least, full = (min(sizes.context, context or most) for most in (LEAST_CONTEXT, MOST_CONTEXT))
    fewest = min(LEAST_STATES, sizes.states(sequences))
    return sizes.need(least, sequences, states=fewest).total, sizes.need(full, sequences).total
