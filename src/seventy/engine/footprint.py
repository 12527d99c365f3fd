"""A model file's sizes for the account of memory (runtime/memory.py); nothing is loaded for it."""

from seventy.cache.prefix import KVCache
from seventy.gguf.source import Source
from seventy.graph.weights import packed_bytes
from seventy.kernels.pages import PAGE
from seventy.models.blocks.dense import Config
from seventy.runtime.memory import Footprint, row_columns


def footprint(source: Source, config: Config, kv: str = "f16") -> Footprint:
    """Raises SeventyError where a tensor has a type that the engine does not know."""
    c = config
    return Footprint(
        weights=sum(packed_bytes(info) for info in source.tensors.values()),
        position_bytes=KVCache.nbytes(c.layers, c.kv_heads, c.head_dim, PAGE, kv) // PAGE,
        columns=row_columns(c.hidden, c.heads * c.head_dim, c.kv_heads * c.head_dim, c.feed_forward),
        vocabulary=c.vocabulary,
        context=c.context,
    )
