"""A catalogue model's exact shapes with random weights, made as they are read: for speed, not for sense.

It knows the dense architectures only. A model of fewer layers takes some of every kind, so that the bytes of its
average layer are near those of the whole model's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seventy.bench.quants import quant_name, tensor_type
from seventy.cache.spec import Paged
from seventy.catalog.models import find_model
from seventy.catalog.rows import table
from seventy.errors import SeventyError
from seventy.formats import Format, by_name, formats
from seventy.gguf.tensors import TensorInfo
from seventy.runtime.memory import Footprint, row_columns
from seventy.sizes import size

_ARCHITECTURES = ("llama", "qwen2", "qwen3")
# About a megabyte of random blocks is repeated; a prime number of them, so that neighbouring rows differ.
_TILE_BLOCKS = 7919
# More layers do not make an extrapolation better, they only take longer.
_ENOUGH_LAYERS = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """A dense model's numbers; `tied` where the embedding is also the head."""

    name: str
    architecture: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    tied: bool

    def matrices(self, layer: int | None) -> dict[str, tuple[int, int]]:
        """Rows and columns of the matrices of a layer, or (None) of those beside the layers."""
        if layer is None:
            ends = {"token_embd": (self.vocabulary, self.hidden), "output": (self.vocabulary, self.hidden)}
            return {"token_embd": ends["token_embd"]} if self.tied else ends
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "attn_q": (q, self.hidden), "attn_k": (kv, self.hidden), "attn_v": (kv, self.hidden),
            "attn_output": (self.hidden, q), "ffn_gate": (self.feed_forward, self.hidden),
            "ffn_up": (self.feed_forward, self.hidden), "ffn_down": (self.hidden, self.feed_forward),
        }  # fmt: skip

    def vectors(self, layer: int | None) -> dict[str, int]:
        """Lengths of the norms and biases of a layer, or (None) of those beside the layers."""
        if layer is None:
            return {"output_norm.weight": self.hidden}
        found = {"attn_norm.weight": self.hidden, "ffn_norm.weight": self.hidden}
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.architecture == "qwen2":
            found |= {"attn_q.bias": q, "attn_k.bias": kv, "attn_v.bias": kv}
        if self.architecture == "qwen3":
            found |= {"attn_q_norm.weight": self.head_dim, "attn_k_norm.weight": self.head_dim}
        return found

    def format(self, quant: str, matrix: str, columns: int, layer: int) -> Format:
        role = "output" if matrix == "token_embd" and self.tied else matrix
        kind = tensor_type(quant, role, columns, layer, self.layers, self.heads // self.kv_heads)
        return by_name(kind)

    def footprint(self, quant: str, layers: Sequence[int]) -> Footprint:
        """What a model of these of its layers takes of memory."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return Footprint(
            weights=sum(
                self.nbytes(quant, layer) + 4 * sum(self.vectors(layer).values()) for layer in (None, *layers)
            ),
            position_bytes=len(layers) * Paged(self.kv_heads, self.head_dim, self.head_dim).position_bytes("f16"),
            columns=row_columns(self.hidden, q, kv, self.feed_forward),
            vocabulary=self.vocabulary,
            context=self.context,
        )

    def nbytes(self, quant: str, layer: int | None) -> int:
        """Bytes of the matrices of a layer, or (None) of those beside the layers."""
        return sum(
            rows * self.format(quant, name, columns, layer or 0).row_bytes(columns)
            for name, (rows, columns) in self.matrices(layer).items()
        )


def find_shape(name: str) -> Shape:
    """The shape of a model of the catalogue. Raises SeventyError for one that is not dense."""
    model = find_model(name)
    row = next(row for _, row in table("models.csv") if row["name"] == model.name)
    if model.mixture or model.arch not in _ARCHITECTURES:
        raise SeventyError(
            f"--synthetic knows dense models of the architectures {', '.join(_ARCHITECTURES)}, and {model.name} is "
            f"{'a mixture of experts' if model.mixture else model.arch}; take another, llama-3.3-70b say"
        )
    names = {"layers": "layers", "hidden": "hidden", "feed_forward": "ffn", "heads": "heads", "kv_heads": "kv_heads",
             "head_dim": "head_dim", "vocabulary": "vocab", "context": "context"}  # fmt: skip
    numbers = {ours: int(row[theirs]) for ours, theirs in names.items()}
    untied = Shape(name=model.name, architecture=model.arch, tied=False, **numbers)
    ends = untied.vocabulary * untied.hidden
    blocks = untied.layers * sum(rows * columns for rows, columns in untied.matrices(0).values())
    # The catalogue does not say which it is, but its parameters do.
    tied = abs(blocks + ends - 1e9 * model.params_b) < abs(blocks + 2 * ends - 1e9 * model.params_b)
    return Shape(name=model.name, architecture=model.arch, tied=tied, **numbers)


def choose_layers(shape: Shape, quant: str, count: int) -> list[int]:
    """`count` layers of the model, of each size as many as their share of all layers asks for."""
    by_size: dict[int, list[int]] = {}
    for layer in range(shape.layers):
        by_size.setdefault(shape.nbytes(quant, layer), []).append(layer)
    chosen: list[int] = []
    taken = dict.fromkeys(by_size, 0)
    for number in range(1, count + 1):
        # The size that is furthest behind its share.
        size = max(by_size, key=lambda size: number * len(by_size[size]) / shape.layers - taken[size])
        chosen.append(by_size[size][taken[size]])
        taken[size] += 1
    return sorted(chosen)


def fitting_layers(shape: Shape, quant: str, context: int, room_bytes: int, wanted: int | None) -> int:
    """How many layers to make: all if they fit, else a few that do; exactly `wanted` if given.

    Raises SeventyError where not even those fit.
    """
    if wanted is not None and wanted > shape.layers:
        raise SeventyError(f"{shape.name} has {shape.layers} layers, not {wanted}; take fewer, or leave --layers out")

    def need(count: int) -> int:
        return shape.footprint(quant, choose_layers(shape, quant, count)).need(context).total

    fit = max((count for count in range(shape.layers + 1) if need(count) <= room_bytes), default=0)
    if wanted is None and fit == shape.layers:
        return shape.layers
    if fit < (wanted or 1):
        raise SeventyError(
            f"{wanted or 1} of {shape.layers} layers of {shape.name} {quant} need {size(need(wanted or 1))} of memory "
            f"and {size(room_bytes)} are free for it; close other programs, or take fewer --layers or another --quant"
        )
    # Half of what is free: the user did not ask for more, and others live here, too.
    return wanted or min(_ENOUGH_LAYERS, max(1, fit // 2), shape.layers - 1)


class Synthetic:
    """Tensors of a shape with random weights, as `engine.source.Source` has them."""

    def __init__(self, shape: Shape, quant: str, layers: list[int] | None = None) -> None:
        """`layers` are the model's own that are made, all when not given."""
        self.shape, self.quant = shape, quant_name(quant)
        self.layers = list(range(shape.layers)) if layers is None else layers
        self.path = f"{shape.name} {self.quant} (random weights)"
        prefix = shape.architecture + "."
        self.metadata: Mapping[str, Any] = {
            "general.architecture": shape.architecture, prefix + "block_count": len(self.layers),
            prefix + "embedding_length": shape.hidden, prefix + "feed_forward_length": shape.feed_forward,
            prefix + "attention.head_count": shape.heads, prefix + "attention.head_count_kv": shape.kv_heads,
            prefix + "attention.key_length": shape.head_dim, prefix + "attention.value_length": shape.head_dim,
            prefix + "context_length": shape.context, prefix + "vocab_size": shape.vocabulary,
            prefix + "attention.layer_norm_rms_epsilon": 1e-5, prefix + "rope.freq_base": 500000.0,
            prefix + "rope.dimension_count": shape.head_dim,
        }  # fmt: skip
        self.tensors: dict[str, TensorInfo] = {}
        self._add("", None)
        for number, layer in enumerate(self.layers):
            self._add(f"blk.{number}.", layer)
        self._tiles: dict[tuple[int, int], NDArray[np.uint8]] = {}
        for info in self.tensors.values():
            if len(info.shape) == 2 and (key := (info.type, info.shape[1])) not in self._tiles:
                self._tiles[key] = random_blocks(self._format_of(info), _TILE_BLOCKS, info.shape[1] ** -0.5).reshape(-1)

    def _add(self, prefix: str, layer: int | None) -> None:
        for name, (rows, columns) in self.shape.matrices(layer).items():
            format = self.shape.format(self.quant, name, columns, layer or 0)
            nbytes = rows * format.row_bytes(columns)
            name = f"{prefix}{name}.weight"
            self.tensors[name] = TensorInfo(name, (rows, columns), format.type_id, 0, 0, nbytes)
        for name, length in self.shape.vectors(layer).items():
            self.tensors[prefix + name] = TensorInfo(prefix + name, (length,), 0, 0, 0, 4 * length)

    @staticmethod
    def _format_of(info: TensorInfo) -> Format:
        return formats()[info.type]

    @property
    def nbytes(self) -> int:
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def layer_scale(self) -> float:
        """What the time of the layers made must be multiplied by to be that of all: the ratio of their bytes."""
        made = sum(self.shape.nbytes(self.quant, layer) for layer in self.layers)
        return sum(self.shape.nbytes(self.quant, layer) for layer in range(self.shape.layers)) / made

    def pread(
        self, info: TensorInfo, start: int, nbytes: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Random blocks (of a vector: ones), the same for the same place."""
        if out is None:
            out = np.empty(nbytes, np.uint8)
        if len(info.shape) == 1:
            assert start == 0, f"{info.name}: vectors are read whole"
            out[:] = np.ones(info.shape[0], np.float32).view(np.uint8)[:nbytes]
            return out
        tile = self._tiles[info.type, info.shape[1]]
        at, done = start % len(tile), 0
        while done < nbytes:
            part = min(len(tile) - at, nbytes - done)
            out[done : done + part] = tile[at : at + part]
            at, done = 0, done + part
        return out

    def read(self, info: TensorInfo) -> NDArray[np.uint8]:
        return self.pread(info, 0, info.nbytes)

    def fileno(self, info: TensorInfo) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._tiles.clear()


def random_blocks(format: Format, n: int, size: float, seed: int = 0) -> NDArray[np.uint8]:
    """[n, nbytes] u8: random bits whose factors are such that the weights' root mean square is `size`."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n, format.nbytes), dtype=np.uint8)
    # Over two octaves: where a format rounds factors to powers of two, their mean is that of those wanted.
    factors = rng.standard_normal(n) if format.block == 1 else 2.0 ** rng.uniform(-1, 1, n)
    for _ in range(2):
        format.set_factors(blocks, factors.astype(np.float32))
        factors *= size / float(np.sqrt(np.mean(np.square(format.dequantize(blocks)))))
    return blocks
