"""The numbers of a model whose blocks are grouped-query attention and a feed-forward, read from its metadata."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from seventy.cache.spec import CacheSpec, HiddenStates, Paged, Recurrent, Shared
from seventy.errors import SeventyError
from seventy.graph.products import RouterRule
from seventy.graph.program import DeltaHeads
from seventy.kernels.delta_rule import log_shape
from seventy.kernels.route import Scoring
from seventy.kernels.short_convolution import MAX_PENDING, window_shape
from seventy.language import t
from seventy.models.blocks.metadata import Metadata
from seventy.models.blocks.rotary import Rotary

# The queries of a step of 256 rows are then 128 MB at most.
MOST_QUERY_COLUMNS = 1 << 17
# A period of windows that no model has: all its layers have one, where the file says how long it is.
EVERY_LAYER = 1025
# What some files of these families ask for and the engine does not do, and the value that asks for nothing.
_NOT_DONE = {
    "attention.clamp_kqv": (t("clamped queries, keys and values"), 0),
    "attention.max_alibi_bias": (t("ALiBi positions"), 0),
    "attn_logit_softcapping": (t("capped attention scores"), 0),
    "attention.scale": (t("an attention scale of its own"), 0),
    "logit_scale": (t("scaled logits"), 1),
    "embedding_scale": (t("scaled embeddings"), 1),
    "residual_scale": (t("scaled residuals"), 1),
}


# By expert_gating_func; 0 says nothing.
_SCORING: dict[int, Scoring] = {1: "softmax", 2: "sigmoid", 3: "softmax of the chosen"}
# What is normalised of queries and keys: nothing, each head, each head where the file has weights for it, or all heads
# of a row together.
QueryNorm = Literal["none", "head", "head if present", "row"]


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in the layers from `first_layer` on: `count` of width `feed_forward`, chosen by `rule`.

    `shared` is the width of one more expert, which every row goes to; 0 where there is none. With `shared_gate`, each
    row takes a part of what it gives, as a score of its own says. `activation` makes one number of gate and up
    (kernels/activations.py).
    """

    count: int
    feed_forward: int
    rule: RouterRule
    first_layer: int
    shared: int
    shared_gate: bool
    activation: str


@dataclass(frozen=True, slots=True)
class Mixture:
    """How an architecture uses experts, where its files do not say.

    `scoring` is the default. Weights are normalised or not, and not scaled; with `by_file`, expert_weights_norm and
    expert_weights_scale decide. `shared_gate` is as in Experts. If the experts stand `beside` it, layers have a
    feed-forward, too.
    """

    scoring: Scoring = "softmax"
    normalise: bool = True
    by_file: bool = False
    shared_gate: bool = False
    activation: str = "swiglu"
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Latent:
    """Latent attention: all heads share one key of `rank` + `rotary` elements, whose first `rank` are its value too.

    A head's query has `nope` + `rotary` elements and what it gives has `value`. Queries are products of two matrices,
    of rank `query_rank`, or of one where that is 0. Scores are multiplied by `scale`, and those of a row at position p
    by 1 + temperature * ln(1 + p // temperature_length), too.
    """

    rank: int
    rotary: int
    nope: int
    value: int
    query_rank: int
    scale: float
    temperature: float
    temperature_length: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The keys and values of a layer: how many heads of how many elements, and how these turn."""

    kv_heads: int
    head_dim: int
    rotary: Rotary


@dataclass(frozen=True, slots=True)
class Temperature:
    """Scores of a row at position p are multiplied by 1 + scale * ln(1 + p // length) (Llama 4; Mistral 3)."""

    scale: float
    length: int


@dataclass(frozen=True, slots=True)
class DeltaNet:
    """Gated delta-nets instead of attention: in which layers, their heads, and how many rows their convolution sees."""

    layers: tuple[bool, ...]
    heads: DeltaHeads
    taps: int

    @property
    def inner(self) -> int:
        """Columns of what they make."""
        return self.heads.dim * self.heads.values

    @property
    def channels(self) -> int:
        """The number of columns of queries, keys and values together."""
        return 2 * self.heads.dim * self.heads.keys + self.inner

    @property
    def cache(self) -> Recurrent:
        """A layer's recurrent state: the convolution's window, a matrix per value head, a log of drafted rows."""
        n = self.heads
        window, log = window_shape(self.taps, self.channels), log_shape(n.dim, n.values)
        log_bytes = 4 * (MAX_PENDING * self.channels + math.prod(log))
        return Recurrent((window, (n.values, n.dim, n.dim), log), log_bytes)


@dataclass(frozen=True, slots=True)
class Convolution:
    """Gated short convolutions instead of attention: in which layers, how many rows each sees, how wide it is."""

    layers: tuple[bool, ...]
    taps: int
    channels: int

    @property
    def cache(self) -> Recurrent:
        """The recurrent state of a layer: the convolution's window."""
        return Recurrent((window_shape(self.taps, self.channels),), 4 * MAX_PENDING * self.channels)


@dataclass(frozen=True, slots=True)
class Config:
    """The numbers of a model, as its GGUF's metadata gives them.

    `feed_forward` are the widths of each layer's feed-forward, 0 where all layers have experts instead. After the
    layers a file may have `further_blocks`, of multi-token prediction, which the main pass does not run; with
    `predicts` the first of them is there to draft tokens (models/blocks/multi_token.py). `shapes` and `windows` are the
    keys and values of each layer, and how many positions it sees, None where it sees all. With `latent`, there is one
    key for all heads; where the model is `indexed`, an indexer chooses keys, which changes nothing up to `context`.
    With `delta_net` or `convolution`, some layers have that instead of attention. What `gated` attention makes is
    multiplied by the sigmoid of as many numbers. The last `shared_kv` layers have no keys and values of their own
    (`kv_layer`).

    Embeddings are multiplied by `embedding_scale`, scores by `attention_scale`, which is head_dim ** -0.5 where it is
    None, and by the `temperature`. With `post_norms`, what attention and the feed-forward give is normalised before it
    is added; with `value_norm`, so is each head of a value, without weights, and a layer without a matrix for values
    has its keys as such. `activation` is that of feed-forwards (kernels/activations.py). Logits are held between
    -`logit_cap` and that where it is not 0. `final_norm` is the name of the norm before the head. With `fused_gate`, a
    feed-forward's gate and up are one tensor, ffn_up. Where `per_layer` is not 0, so many numbers of a token's own
    enter each layer (models/blocks/per_layer.py).

    `assistant` are the numbers of a small model that drafts for this one (models/gemma4_assistant.py): its layers have
    no keys and values but attend to those of this model's layers `attends`, its tensors' names begin with `prefix`, and
    what it takes in and gives is `backbone` wide.
    """

    layers: int
    hidden: int
    feed_forward: tuple[int, ...]
    heads: int
    shapes: tuple[Shape, ...]
    vocabulary: int
    context: int
    epsilon: float
    query_norm: QueryNorm
    feed_forward_norm: str
    experts: Experts | None
    further_blocks: int
    windows: tuple[int | None, ...]
    latent: Latent | None = None
    indexed: bool = False
    delta_net: DeltaNet | None = None
    convolution: Convolution | None = None
    gated: bool = False
    shared_kv: int = 0
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    temperature: Temperature | None = None
    post_norms: bool = False
    value_norm: bool = False
    activation: str = "swiglu"
    logit_cap: float = 0.0
    final_norm: str = "output_norm"
    fused_gate: bool = False
    per_layer: int = 0
    predicts: bool = False
    assistant: "Config | None" = None
    attends: tuple[int, ...] = ()
    prefix: str = ""
    backbone: int = 0

    def block(self, layer: int) -> str:
        """Return what the names of a layer's tensors begin with."""
        return f"{self.prefix}blk.{layer}."

    def kv_layer(self, layer: int) -> int:
        """Return the layer whose keys and values this one attends to.

        A layer without its own uses the last one before `shared_kv` with the same kind of attention (windowed or full).
        """
        if self.attends:
            return self.attends[layer]
        own = self.layers - self.shared_kv
        if layer < own or layer >= self.layers:
            return layer
        windowed = self.windows[layer] is not None
        return max(first for first in range(own) if (self.windows[first] is not None) == windowed)

    def runs(self, tensor: str) -> bool:
        """Return whether the model's own steps may use the tensor of this name."""
        if self.indexed and ".indexer." in tensor:
            return False
        # For activations of four bits, which no CPU multiplies: llama.cpp reads it and uses it on GPUs only.
        if tensor.endswith(".input_scale"):
            return False
        # Which part of an assistant's vocabulary a guess is looked for in: all of it is.
        if self.assistant and tensor.startswith(f"{self.assistant.prefix}masked_embd_"):
            return False
        # A classifier takes what the main pass makes (engine/ranking.py).
        if tensor.startswith("cls.output."):
            return False
        block = re.match(r"blk\.(\d+)\.", tensor)
        if block is None:
            return True
        layer = int(block[1])
        # What a layer would make keys and values of that has those of another.
        shares = self.layers - self.shared_kv <= layer < self.layers
        if shares and tensor[block.end() :].startswith(("attn_k", "attn_v")):
            return False
        return not self.predicts <= layer - self.layers < self.further_blocks


def read(
    metadata: Mapping[str, Any],
    architecture: str,
    interleaved: bool,
    query_norm: QueryNorm = "none",
    feed_forward_norm: str = "ffn_norm",
    experts: Mixture | None = None,
    window_period: int = 0,
    shape_by_window: bool = False,
    temperature: bool = False,
    tiled_heads: bool | None = None,
    gated: bool = False,
    convolutions: bool = False,
) -> Config:
    """Read a model's numbers; with `experts`, its feed-forwards are mixtures of experts.

    `feed_forward_norm` is the name of the norm before a layer's feed-forward. Of `window_period` layers the last sees
    all positions and the others a window, where the file says nothing else; 0 for an architecture without windows. With
    `shape_by_window`, the layers with a window have heads, and turn them, as keys of their own say. With `temperature`,
    scores grow with the position where the file says how fast. `tiled_heads` says which key head a value head of a
    delta-net has (kernels/delta_rule.py); None for an architecture without delta-nets. With `convolutions`, layers
    without heads of keys and values have one of those. The other arguments are as in Config. Raises SeventyError where
    a number is missing or cannot be, or the model needs what the engine cannot do.
    """
    m = Metadata(metadata, architecture)
    if not experts and (count := m.raw("expert_count")):
        raise SeventyError(
            "this {architecture} model has a mixture of experts (expert_count = {count!r}), which this engine does "
            "not do in this architecture; take another model",
            architecture=architecture, count=count,
        )
    refuse_not_done(m, architecture)
    heads, hidden = m.integer("attention.head_count", 1, 4096), m.integer("embedding_length", 16, 1 << 17)
    blocks = m.integer("block_count", 1, 1024)
    further = m.integer("nextn_predict_layers", 0, blocks - 1, default=0)
    layers = blocks - further
    windows = _windows(m, layers, window_period)
    kv_heads = m.integers("attention.head_count_kv", 0 if convolutions else 1, 4096, layers, default=heads)
    dim, rotary = _head(m, architecture, heads, kv_heads, hidden // heads, interleaved)
    of_windows = _head_of_windows(m, architecture, heads, kv_heads, dim, interleaved) if shape_by_window else None
    # No context longer than the sliding window of the first Mistral, say: up to there it changes nothing.
    window = 0 if window_period else m.integer("attention.sliding_window", 0, 1 << 24, default=0)
    mixture = read_experts(m, experts, layers) if experts else None
    all_experts = experts is not None and mixture is not None and mixture.first_layer == 0 and not experts.beside
    return Config(
        layers=layers,
        hidden=hidden,
        feed_forward=(0,) * layers if all_experts else m.integers("feed_forward_length", 16, 1 << 20, layers),
        heads=heads,
        shapes=tuple(
            Shape(n, *(of_windows if of_windows and window else (dim, rotary)))
            for n, window in zip(kv_heads, windows, strict=True)
        ),
        vocabulary=m.vocabulary(),
        context=min(m.context(), window or m.context()),
        epsilon=m.number("attention.layer_norm_rms_epsilon"),
        query_norm=query_norm,
        feed_forward_norm=feed_forward_norm,
        experts=mixture,
        further_blocks=further,
        windows=windows,
        temperature=_temperature(m, rotary) if temperature else None,
        logit_cap=m.number("final_logit_softcapping") if m.raw("final_logit_softcapping") else 0.0,
        delta_net=None if tiled_heads is None else _delta_net(m, layers, tiled_heads),
        convolution=_convolution(m, kv_heads, hidden) if convolutions else None,
        gated=gated,
    )


def _head(
    m: Metadata, architecture: str, heads: int, kv_heads: Sequence[int], head_dim: int, interleaved: bool
) -> tuple[int, Rotary]:
    """Read how many elements a head has and how they turn, of layers without a window or of all."""
    dim = m.integer("attention.key_length", 16, 1024, default=head_dim)
    value_dim = m.integer("attention.value_length", 1, 1 << 17, default=dim)
    _check_head(architecture, heads, kv_heads, dim, value_dim)
    rotary = Rotary.from_metadata(m, dim, interleaved)
    if m.raw("rope.scaling.yarn_log_multiplier"):
        rotary = rotary.shortened(m.number("rope.scaling.yarn_log_multiplier"))
    return dim, rotary


def _temperature(m: Metadata, rotary: Rotary) -> Temperature | None:
    key = "attention.temperature_scale"
    return Temperature(m.number(key), rotary.original) if m.raw(key) else None


def _head_of_windows(
    m: Metadata, architecture: str, heads: int, kv_heads: Sequence[int], head_dim: int, interleaved: bool
) -> tuple[int, Rotary]:
    """Read the same of layers with a window; what the file does not say of them is as in the others."""
    dim = m.integer("attention.key_length_swa", 16, 1024, default=head_dim)
    value_dim = m.integer("attention.value_length_swa", 1, 1 << 17, default=dim)
    _check_head(architecture, heads, kv_heads, dim, value_dim)
    return dim, Rotary.of_windows(m, dim, interleaved)


def _check_head(architecture: str, heads: int, kv_heads: Sequence[int], head_dim: int, value_dim: int) -> None:
    wrong = next((n for n in kv_heads if n and heads % n), None)
    if wrong or head_dim % 16 or value_dim != head_dim or heads * head_dim > MOST_QUERY_COLUMNS:
        raise SeventyError(
            "this {architecture} model has {heads} heads of {head_dim} and {wrong} of keys and values, values of "
            "{value_dim}; the engine needs whole groups, and values like keys, of a multiple of 16: take another "
            "model",
            architecture=architecture, heads=heads, head_dim=head_dim, wrong=wrong or max(kv_heads),
            value_dim=value_dim,
        )


def _windows(m: Metadata, layers: int, period: int) -> tuple[int | None, ...]:
    if not period:
        return (None,) * layers
    window = m.integer("attention.sliding_window", 0, 1 << 24, default=0)
    if hasattr(m.raw("attention.sliding_window_pattern"), "__len__"):
        windowed = m.flags("attention.sliding_window_pattern", layers)
    else:
        period = m.integer("attention.sliding_window_pattern", 1, EVERY_LAYER, default=period)
        windowed = tuple(layer % period < period - 1 for layer in range(layers))
    return tuple(window if window and windowed[layer] else None for layer in range(layers))


def refuse_not_done(m: Metadata, architecture: str, done: Sequence[str] = ()) -> None:
    """Raise SeventyError where the model needs what the engine cannot do; the keys `done` are known to the caller."""
    for key, (what, nothing) in _NOT_DONE.items():
        if key not in done and (value := m.raw(key)) not in (None, nothing):
            raise SeventyError(
                "this {architecture} model has {what} ({key} = {value!r}), which this engine does not do; take "
                "another model",
                architecture=architecture, what=what, key=key, value=value,
            )


def _delta_net(m: Metadata, layers: int, tiled: bool) -> DeltaNet:
    if m.raw("attention.recurrent_layers") is None:
        # All but the last of each group.
        period = m.integer("full_attention_interval", 1, 1024, default=4)
        recurrent = tuple((layer + 1) % period != 0 for layer in range(layers))
    else:
        recurrent = m.flags("attention.recurrent_layers", layers)
    dim, inner = m.integer("ssm.state_size", 16, 512), m.integer("ssm.inner_size", 16, 1 << 17)
    keys, values = m.integer("ssm.group_count", 1, 4096), m.integer("ssm.time_step_rank", 1, 4096)
    if dim % 16 or values % keys or inner != dim * values:
        raise SeventyError(
            "the model's delta-nets have {keys} key heads and {values} value heads of {dim}, {inner} columns in all; "
            "the engine needs whole groups of heads whose size is a multiple of 16: take another model",
            keys=keys, values=values, dim=dim, inner=inner,
        )
    return DeltaNet(recurrent, DeltaHeads(dim, keys, values, tiled), m.integer("ssm.conv_kernel", 2, 16))


def _convolution(m: Metadata, kv_heads: Sequence[int], hidden: int) -> Convolution:
    if hidden % 16:
        raise SeventyError(
            "the model's convolutions have {hidden} channels; the engine needs a multiple of 16: take another model",
            hidden=hidden,
        )
    return Convolution(tuple(not n for n in kv_heads), m.integer("shortconv.l_cache", 2, 16), hidden)


def read_experts(m: Metadata, mixture: Mixture, layers: int) -> Experts:
    """Read the numbers of a mixture of experts."""
    count = m.integer("expert_count", 1, 4096)
    used = m.integer("expert_used_count", 1, min(count, 64))
    # Some files give the width of all experts of a row together.
    together = m.integer("feed_forward_length", 16, 1 << 20, default=1 << 20) // used
    width = m.integer("expert_feed_forward_length", 16, 1 << 20, default=together)
    shared = m.integer("expert_shared_count", 0, 64, default=0) * width
    return Experts(
        count,
        width,
        _rule(m, mixture, count, used),
        first_layer=m.integer("leading_dense_block_count", 0, layers, default=0),
        shared=m.integer("expert_shared_feed_forward_length", 0, 1 << 20, default=shared),
        shared_gate=mixture.shared_gate,
        activation=mixture.activation,
    )


def _rule(m: Metadata, mixture: Mixture, count: int, used: int) -> RouterRule:
    scoring = mixture.scoring
    if function := m.integer("expert_gating_func", 0, 1 << 16, default=0):
        if function not in _SCORING:
            raise SeventyError(
                "the model's router makes weights of its scores by function {function} (expert_gating_func), which "
                "this engine does not know; take a model with one of: {functions}",
                function=function, functions=", ".join(map(str, _SCORING)),
            )
        scoring = _SCORING[function]
    normalise, scale = mixture.normalise, 1.0
    if mixture.by_file:
        normalise = m.flag("expert_weights_norm", default=False)
        # 0 says nothing.
        scale = m.number("expert_weights_scale", default=1.0) if m.raw("expert_weights_scale") else 1.0
    groups = max(1, m.integer("expert_group_count", 0, count, default=1))
    groups_used = m.integer("expert_group_used_count", 0, groups, default=groups)
    if groups == 1:
        return RouterRule(used, scoring, normalise, scale)
    if count % groups or count // groups < 2 or used > groups_used * (count // groups):
        raise SeventyError(
            "the model's router chooses {used} of {count} experts in {groups_used} of {groups} groups; that cannot "
            "be: get the file again",
            used=used, count=count, groups_used=groups_used, groups=groups,
        )
    return RouterRule(used, scoring, normalise, scale, groups, groups_used)


def caches(config: Config) -> list[CacheSpec]:
    """Return what each layer remembers."""
    found = [_cache(config, layer) for layer in range(config.layers)]
    if config.assistant:
        return [*found, HiddenStates(config.hidden)]
    return found + predicting(config, _cache(config, config.layers)) if config.predicts else found


def predicting(config: Config, block: CacheSpec) -> list[CacheSpec]:
    """Return what drafts with a block of multi-token prediction need, which remembers this, behind the layers'."""
    assert isinstance(block, Paged), str(block)
    return [replace(block, predicts=True), HiddenStates(config.hidden)]


def _cache(config: Config, layer: int) -> CacheSpec:
    for recurrent in (config.delta_net, config.convolution):
        if recurrent and recurrent.layers[layer]:
            return recurrent.cache
    if (source := config.kv_layer(layer)) != layer:
        return Shared(source)
    shape = config.shapes[layer]
    return Paged(shape.kv_heads, shape.head_dim, shape.head_dim, config.windows[layer])
