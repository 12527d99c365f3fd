"""The parts of a forward pass that several families share, in plain float32 numpy.

Weights are read and dequantised by the `gguf` package; nothing here uses the engine, so that it can judge the engine.
Rows of tokens are the first axis everywhere, a head's vectors the last.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import gguf

Array = np.ndarray
Activation = Callable[[Array], Array]

# For matrices as small as these, a second thread of BLAS costs more than it gives.
threadpool_limits(1, "blas")


class Model:
    """A GGUF file's metadata and dequantised weights, and for each row of tokens how narrow its router's choice was.

    `gaps` [n] is the smallest difference, over the layers, of the last chosen and the first refused selection score;
    infinite where nothing is chosen.
    """

    def __init__(self, path: Path, ids: list[int]) -> None:
        reader = gguf.GGUFReader(path)
        self.architecture = str(reader.fields["general.architecture"].contents())
        prefix = f"{self.architecture}."
        self._keys = {
            name.removeprefix(prefix): field.contents()
            for name, field in reader.fields.items()
            if name.startswith(prefix)
        }
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.n = len(ids)
        self.gaps = np.full(self.n, np.inf, np.float32)
        self.layers = self.key("block_count") - self.key("nextn_predict_layers", 0)
        self.epsilon = self.key("attention.layer_norm_rms_epsilon")
        self.heads = self.of_layer("attention.head_count", 0)
        self.head_dim = self.key("attention.key_length", self.key("embedding_length") // self.heads)

    def key(self, name: str, default: Any = None) -> Any:
        """A value of the metadata; a KeyError where the file has none and there is no default."""
        return self._keys[name] if default is None else self._keys.get(name, default)

    def of_layer(self, name: str, layer: int, default: Any = None) -> Any:
        """A value that may be an array with one entry a layer."""
        value = self.key(name, default)
        return value[layer] if isinstance(value, list) else value

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name]
        return gguf.dequantize(tensor.data, tensor.tensor_type)

    def optional(self, name: str) -> Array | None:
        if name not in self:
            return None
        return self[name]

    def linear(self, x: Array, name: str) -> Array:
        """x times the matrix `name`.weight, times its `.scale` and plus its `.bias` where the file has them."""
        y = x @ self[f"{name}.weight"].T
        if f"{name}.scale" in self:
            y = y * self[f"{name}.scale"]
        return y + self[f"{name}.bias"] if f"{name}.bias" in self else y

    def norm(self, x: Array, name: str) -> Array:
        return rms_norm(x, self.epsilon) * self[f"{name}.weight"]

    def qkv(self, x: Array, block: str, *rows: int) -> list[Array]:
        """Queries, keys and values of so many rows each, from three matrices or a fused one."""
        if f"{block}attn_qkv.weight" in self:
            return np.split(self.linear(x, f"{block}attn_qkv"), np.cumsum(rows)[:-1], axis=1)
        return [self.linear(x, f"{block}attn_{name}") for name in "qkv"]

    def feed_forward(self, x: Array, block: str, suffix: str = "", activation: Activation | None = None) -> Array:
        """The dense gated MLP, or a shared expert with the suffix "_shexp"; SwiGLU without another `activation`."""
        gate, up = (self.linear(x, f"{block}ffn_{name}{suffix}") for name in ("gate", "up"))
        return self.linear((activation or silu)(gate) * up, f"{block}ffn_down{suffix}")

    def route(
        self, x: Array, block: str, gating: int, normalise: bool, scale: float = 0.0, logits: Array | None = None
    ) -> tuple[Array, Array]:
        """The experts of each row [n, used] and their weights [n, used]; `gating` is expert_gating_func."""
        logits = self.linear(x, f"{block}ffn_gate_inp") if logits is None else logits
        scores = {1: softmax, 2: sigmoid, 3: np.copy}[gating](logits)
        bias = f"{block}exp_probs_b.bias"
        wishes = scores + self[bias] if bias in self else scores
        groups = self.key("expert_group_count", 1)
        if groups > 1:
            grouped = wishes.reshape(self.n, groups, -1)
            best = np.sort(grouped, axis=-1)[..., -2:].sum(-1)
            kept = np.zeros(best.shape, bool)
            np.put_along_axis(kept, self._largest(best, self.key("expert_group_used_count")), True, 1)
            wishes = np.where(kept[..., None], grouped, -np.inf).reshape(scores.shape)
        chosen = self._largest(wishes, self.of_layer("expert_used_count", int(block.split(".")[1])))
        weights = np.take_along_axis(scores, chosen, 1)
        if gating == 3:
            weights = softmax(weights)
        if normalise:
            weights = weights / np.maximum(weights.sum(-1, keepdims=True), np.float32(6.103515625e-5))
        return chosen, weights * (scale or 1.0)

    def _largest(self, scores: Array, n: int) -> Array:
        """Indices [rows, n] of each row's largest scores; lowers `gaps` to how clear the choice was."""
        order = np.argsort(-scores, axis=-1, kind="stable")
        if n == scores.shape[1]:
            return order
        last, refused = (np.take_along_axis(scores, order[:, i : i + 1], 1)[:, 0] for i in (n - 1, n))
        self.gaps = np.minimum(self.gaps, last - refused)
        return order[:, :n]

    def experts(self, x: Array, block: str, chosen: Array, weights: Array, activation: Any = None) -> Array:
        """The weighted sum of each row's experts, SwiGLU unless another `activation` of gate and up is given."""
        out = np.zeros_like(x)

        def product(x: Array, name: str, expert: int) -> Array:
            name = f"{block}ffn_{name}_exps"
            y = x @ tensors[name][expert].T
            if f"{name}.scale" in self:
                y = y * self[f"{name}.scale"][expert]
            return y + self[f"{name}.bias"][expert] if f"{name}.bias" in self else y

        names = [f"{block}ffn_{name}_exps" for name in ("gate_up", "gate", "up", "down")]
        tensors = {name: self[f"{name}.weight"] for name in names if f"{name}.weight" in self}
        for expert in np.unique(chosen):
            rows, slots = (chosen == expert).nonzero()
            if f"{block}ffn_gate_up_exps" in tensors:
                gate, up = np.split(product(x[rows], "gate_up", expert), 2, axis=1)
            else:
                gate, up = product(x[rows], "gate", expert), product(x[rows], "up", expert)
            y = product((activation or swiglu)(gate, up), "down", expert)
            out[rows] += weights[rows, slots, None] * y
        return out

    def window(self, layer: int, default: int) -> int:
        """The rows that a row of this layer sees, or 0 for all; of `default` layers the last is full."""
        pattern = self.key("attention.sliding_window_pattern", default)
        windowed = pattern[layer] if isinstance(pattern, list) else layer % pattern < pattern - 1
        return self.key("attention.sliding_window", 0) if windowed else 0

    def rotation(
        self,
        dim: int,
        base: float | None = None,
        divisors: Array | None = None,
        log_multiplier: float = 0.0,
        mscale: float = 1.0,
        scaled: bool = True,
    ) -> Array:
        """Complex factors [n, 1, dim / 2] that turn pairs of a head's first `dim` elements.

        `scaled` applies rope.scaling.*; `divisors` [dim / 2] are those of rope_freqs.weight; `log_multiplier` and
        `mscale` are YaRN's.
        """
        base = base or self.key("rope.freq_base", 10000.0)
        frequencies = base ** (-np.arange(0, dim, 2) / dim) / (1.0 if divisors is None else divisors)
        length = 1.0
        factor = self.key("rope.scaling.factor", 1.0)
        kind = self.key("rope.scaling.type", "none") if scaled else "none"
        if kind == "linear":
            frequencies = frequencies / factor
        elif kind == "yarn":
            original = self.key("rope.scaling.original_context_length", self.key("context_length"))
            turns = np.array(
                [self.key("rope.scaling.yarn_beta_fast", 32.0), self.key("rope.scaling.yarn_beta_slow", 1.0)]
            )
            low, high = dim * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))
            low, high = max(0, np.floor(low)), min(dim - 1, np.ceil(high))
            keep = 1 - np.clip((np.arange(dim // 2) - low) / max(0.001, high - low), 0, 1)
            frequencies = frequencies / factor * (1 - keep) + frequencies * keep
            length = yarn_length(factor, mscale) / (yarn_length(factor, log_multiplier) if log_multiplier else 1)
            length *= self.key("rope.scaling.attn_factor", 1.0)
        return length * np.exp(1j * np.arange(self.n)[:, None, None] * frequencies)

    def temperature(self, length: int) -> Array:
        """Factors [n, 1, 1] of the queries, which grow with every `length` positions."""
        steps = np.log1p(np.arange(self.n) // length) * self.key("attention.temperature_scale", 0.0)
        return (1 + steps).astype(np.float32)[:, None, None]

    def head(self, x: Array, norm: str = "output_norm") -> Array:
        """Logits of the last layer's output."""
        x = self.norm(x, norm)
        return self.linear(x, "output") if "output.weight" in self else x @ self["token_embd.weight"].T


# What a layer makes of the rows: of (model, rows, number of the layer).
Layer = Callable[[Model, Array, int], Array]


def forward_of(path: Path, ids: list[int], layer: Layer) -> tuple[Array, Array]:
    """Logits [n, vocabulary] and router gaps [n] of a model whose layers follow each other."""
    m = Model(path, ids)
    return m.head(_layers(m, ids, layer)), m.gaps


def _layers(m: Model, ids: list[int], layer: Layer) -> Array:
    x = m["token_embd.weight"][ids]
    for i in range(m.layers):
        x = layer(m, x, i)
    return x


def guesses_of(path: Path, ids: list[int], fed: list[int], layer: Layer) -> tuple[Array, Array]:
    """Logits of a block of multi-token prediction, and router gaps: of each of ids, then of each guess that it is fed.

    It takes in a token and what the model made of the one before, zero for the first; behind a guess, what the block
    made of it.
    """
    m = Model(path, ids)
    made = m.norm(_layers(m, ids, layer), "output_norm")
    before = np.concatenate([np.zeros_like(made[:1]), made[:-1]])
    block = f"blk.{m.layers}.nextn."
    for n in range(len(fed) + 1):
        m = Model(path, [*ids, *fed[:n]])
        own = f"{block}embed_tokens.weight"
        tokens = m.norm(m[own if own in m else "token_embd.weight"][[*ids, *fed[:n]]], f"{block}enorm")
        x = m.linear(np.concatenate([tokens, m.norm(before, f"{block}hnorm")], axis=1), f"{block}eh_proj")
        own = f"{block}shared_head_norm"
        h = m.norm(layer(m, x, m.layers), own if f"{own}.weight" in m else "output_norm")
        before = np.concatenate([before, h[-1:]])
    head = next(name for name in (f"{block}shared_head_head", "output", "token_embd") if f"{name}.weight" in m)
    return h @ m[f"{head}.weight"].T, m.gaps


def yarn_length(factor: float, multiplier: float) -> float:
    return 1 + 0.1 * multiplier * np.log(factor) if factor > 1 else 1.0


def rotate(x: Array, turn: Array, neox: bool) -> Array:
    """Turn [n, heads, d]: neighbours are pairs, or with `neox` the two halves of the turned elements."""
    half = turn.shape[-1]
    first, second = np.s_[..., 0 : 2 * half : 2], np.s_[..., 1 : 2 * half : 2]
    if neox:
        first, second = np.s_[..., :half], np.s_[..., half : 2 * half]
    turned = (x[first] + 1j * x[second]) * turn
    out = x.copy()
    out[first], out[second] = turned.real, turned.imag
    return out


def attend(q: Array, k: Array, v: Array, scale: float, window: int = 0, sinks: Array | None = None) -> Array:
    """Causal attention of q [n, heads, d] over k and v [n, kv heads, d]; [n, heads * d of v].

    With a window a row sees itself and the window - 1 rows before it. `sinks` [heads] are logits without a value.
    """
    n, heads, _ = q.shape
    k, v = (np.repeat(a, heads // a.shape[1], axis=1) for a in (k, v))
    distance = np.arange(n)[:, None] - np.arange(n)
    hidden = (distance < 0) | (distance >= (window or n))
    scores = np.where(hidden, -np.inf, np.einsum("qhd,khd->hqk", q, k, optimize=True) * np.float32(scale))
    if sinks is not None:
        scores = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (heads, n, 1))], axis=2)
    return np.einsum("hqk,khd->qhd", softmax(scores)[..., :n], v, optimize=True).reshape(n, -1)


def convolve(u: Array, kernel: Array) -> Array:
    """Each channel of u [n, channels] with its own row of kernel [channels, taps]; the last tap is the row itself."""
    taps = kernel.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, u.shape[1]), np.float32), u])
    return sum(padded[j : j + len(u)] * kernel[:, j] for j in range(taps))


def rms_norm(x: Array, epsilon: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(epsilon))


def softmax(x: Array) -> Array:
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def gelu(x: Array) -> Array:
    """Its tanh form."""
    return 0.5 * x * (1 + np.tanh(np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x**3)))


def gelu_of_llama_cpp(x: Array) -> Array:
    """GELU from llama.cpp's table of half-precision numbers."""
    rounded = gelu(x.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32)
    return np.where(x <= -10, 0, np.where(x >= 10, x, rounded))


def swiglu(gate: Array, up: Array) -> Array:
    return silu(gate) * up
