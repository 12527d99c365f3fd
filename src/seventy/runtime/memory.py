"""What memory a model will need, said before any of it is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from seventy.cache.pages import pages
from seventy.cache.spec import CacheSpec
from seventy.gguf.source import Source
from seventy.graph.weights import packed_bytes
from seventy.models.blocks.config import Config

# A step reads at most so many rows: enough to be bound by arithmetic and not by memory, few enough that the
# activations of a 70B stay under 100 MB.
MAX_ROWS = 256
MAX_OUTPUTS = 64


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes: packed weights, KV cache, and the rows of a step while it runs."""

    weights: int
    cache: int
    rows: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.rows


def needs(source: Source, config: Config, specs: Sequence[CacheSpec], positions: int, kv: str = "f16") -> Needs:
    """What running the model takes with a cache of so many positions."""
    c = config
    # x, queries, keys, values, attended, gate, up; and beside them what of them is written as int8 or again as floats.
    columns = 2 * c.hidden + (3 * c.heads + 2 * c.kv_heads) * c.head_dim + 3 * c.feed_forward
    if c.experts:
        columns += c.experts.count + c.experts.used * (3 * c.experts.feed_forward + c.hidden)
    return Needs(
        weights=sum(packed_bytes(info) for info in source.tensors.values()),
        cache=pages(positions) * sum(spec.page_bytes(kv) for spec in specs),
        rows=4 * (MAX_ROWS * columns + MAX_OUTPUTS * c.vocabulary),
    )
