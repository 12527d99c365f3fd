"""The numbers of a model whose blocks are grouped-query attention and a feed-forward, read from its metadata."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seventy.cache.spec import CacheSpec, Paged
from seventy.errors import SeventyError
from seventy.models.blocks.metadata import Metadata
from seventy.models.blocks.rotary import Rotary

# The queries of a step of 256 rows are then 128 MB at most.
_MOST_QUERY_COLUMNS = 1 << 17
# What some files of these families ask for and the engine does not do, and the value that asks for nothing.
_NOT_DONE = {
    "attention.clamp_kqv": ("clamped queries, keys and values", 0),
    "attention.max_alibi_bias": ("ALiBi positions", 0),
    "attn_logit_softcapping": ("capped attention scores", 0),
    "final_logit_softcapping": ("capped logits", 0),
    "attention.scale": ("an attention scale of its own", 0),
    "logit_scale": ("scaled logits", 1),
    "embedding_scale": ("scaled embeddings", 1),
    "residual_scale": ("scaled residuals", 1),
    "rope.scaling.yarn_log_multiplier": ("YaRN with a multiplier of its own", 0),
}


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: how many, how many of them a row uses, the width of each, the scale of their weights."""

    count: int
    used: int
    feed_forward: int
    scale: float


@dataclass(frozen=True, slots=True)
class Config:
    """The numbers of a model, as its GGUF's metadata gives them. `head_norms`: queries and keys are normalised."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    epsilon: float
    rotary: Rotary
    head_norms: bool
    experts: Experts | None = None


def read(
    metadata: Mapping[str, Any], architecture: str, interleaved: bool, head_norms: bool = False, experts: bool = False
) -> Config:
    """Read a model's numbers; with `experts`, its feed-forwards are mixtures of experts.

    Raises SeventyError where a number is missing or cannot be, or the model needs what the engine cannot do.
    """
    m = Metadata(metadata, architecture)
    if not experts and (count := m.raw("expert_count")):
        raise SeventyError(
            f"this {architecture} model has a mixture of experts (expert_count = {count!r}), which this engine "
            f"does not do in this architecture; take another model"
        )
    for key, (what, nothing) in _NOT_DONE.items():
        if (value := m.raw(key)) not in (None, nothing):
            raise SeventyError(
                f"this {architecture} model has {what} ({key} = {value!r}), which this engine does not do; "
                f"take another model"
            )
    heads, hidden = m.integer("attention.head_count", 1, 4096), m.integer("embedding_length", 16, 1 << 17)
    head_dim = m.integer("attention.key_length", 16, 1024, default=hidden // heads)
    # No context longer than the sliding window of the first Mistral, say: up to there it changes nothing.
    window = m.integer("attention.sliding_window", 0, 1 << 24, default=0)
    config = Config(
        layers=m.integer("block_count", 1, 1024),
        hidden=hidden,
        feed_forward=0 if experts else m.integer("feed_forward_length", 16, 1 << 20),
        heads=heads,
        kv_heads=m.integer("attention.head_count_kv", 1, 4096, default=heads),
        head_dim=head_dim,
        vocabulary=m.vocabulary(),
        context=min(m.context(), window or m.context()),
        epsilon=m.number("attention.layer_norm_rms_epsilon"),
        rotary=Rotary.from_metadata(m, head_dim, interleaved),
        head_norms=head_norms,
        experts=_experts(m) if experts else None,
    )
    value_dim = m.integer("attention.value_length", 1, 1 << 17, default=head_dim)
    if heads % config.kv_heads or head_dim % 16 or value_dim != head_dim or heads * head_dim > _MOST_QUERY_COLUMNS:
        raise SeventyError(
            f"this {architecture} model has {heads} heads of {head_dim} and {config.kv_heads} of keys and values, "
            f"values of {value_dim}; the engine needs whole groups, and values like keys, of a multiple of 16: "
            f"take another model"
        )
    return config


def _experts(m: Metadata) -> Experts:
    count = m.integer("expert_count", 1, 4096)
    used = m.integer("expert_used_count", 1, min(count, 64))
    # Some files give the width of all experts of a row together.
    together = m.integer("feed_forward_length", 16, 1 << 20, default=1 << 20) // used
    width = m.integer("expert_feed_forward_length", 16, 1 << 20, default=together)
    return Experts(count, used, width, m.number("expert_weights_scale", default=1.0))


def caches(config: Config) -> list[CacheSpec]:
    """Return what each layer remembers."""
    return [Paged(config.kv_heads, config.head_dim, config.head_dim)] * config.layers
