"""A catalogue model's exact shapes with random weights, made as they are read: for speed, not for sense.

No list of tensors stands here: the architecture says which it wants of the metadata that released files have. A model
of fewer layers takes some of every kind, so that the bytes of its average layer are near those of the whole model's.
"""

from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from seventy import models
from seventy.bench.quants import Mixed, quant_name, tensor_type
from seventy.cache.spec import CacheSpec, Shared
from seventy.catalog.metadata import released
from seventy.catalog.models import find_model
from seventy.engine.footprint import footprint
from seventy.engine.outline import outline
from seventy.errors import SeventyError
from seventy.formats import Format, by_name, formats
from seventy.gguf.tensors import TensorInfo
from seventy.graph.outline import Outline
from seventy.graph.program import Program
from seventy.graph.weights import packed_bytes
from seventy.runtime.memory import Footprint
from seventy.sizes import size

# About a megabyte of random blocks is repeated; a prime number of them, so that neighbouring rows differ.
_TILE_BLOCKS = 7919
# More layers do not make an extrapolation better, they only take longer.
_ENOUGH_LAYERS = 16
_DENSE_FIRST = "leading_dense_block_count"
_SHARED_LAST = "attention.shared_kv_layers"


class Shape:
    """A model's numbers as its released file has them, without the file.

    `present` are the tensors it has of those that its architecture may have or lack; of a layer without `blk.N.`. Those
    in `of_layers` only some layers have.
    """

    def __init__(
        self,
        name: str,
        metadata: Mapping[str, Any],
        present: frozenset[str],
        of_layers: Mapping[str, Sequence[bool]] | None = None,
    ) -> None:
        self.name, self.metadata = name, metadata
        self._present, self._of_layers = present, of_layers or {}
        self.architecture = str(metadata["general.architecture"])
        self.layers, self.context = int(self._number("block_count")), int(self._number("context_length"))
        heads = self._number("attention.head_count")
        self._mixed = Mixed(
            self.architecture, self.layers, heads // (self._number("attention.head_count_kv") or heads),
            self._number("expert_count"), tied="output.weight" not in present,
        )  # fmt: skip
        self._whole: dict[str, Synthetic] = {}

    def _number(self, key: str) -> int:
        """What the metadata say, of layers that differ the largest; 0 where they say nothing."""
        value = self.metadata.get(f"{self.architecture}.{key}", 0)
        return int(max(value) if isinstance(value, list) else value)

    @property
    def listed(self) -> bool:
        """Whether the metadata say of each layer of which kind it is, and not a rule for all."""
        return any(isinstance(value, list) for value in self.metadata.values())

    def has(self, name: str, layers: Sequence[int]) -> bool:
        """Return whether a model of these layers has a tensor that is optional in its architecture."""
        number, plain = _split(name)
        some = self._of_layers.get(plain)
        return plain in self._present if number is None or some is None else some[_of(layers, number)]

    def of_layers(self, layers: Sequence[int], mtp: bool = False) -> dict[str, Any]:
        """Make the metadata of a model of these layers, and with `mtp` of a block of multi-token prediction."""
        all_blocks = [*layers, layers[-1]] if mtp else layers
        changed = {
            key: [value[layer] for layer in all_blocks] if isinstance(value, list) else value
            for key, value in self.metadata.items()
        }
        changed[f"{self.architecture}.block_count"] = len(all_blocks)
        if mtp:
            changed[f"{self.architecture}.nextn_predict_layers"] = 1
        if dense := self._number(_DENSE_FIRST):
            changed[f"{self.architecture}.{_DENSE_FIRST}"] = sum(layer < dense for layer in layers)
        if shared := self._number(_SHARED_LAST):
            sharing = sum(layer >= self.layers - shared for layer in layers)
            changed[f"{self.architecture}.{_SHARED_LAST}"] = sharing
        return changed

    def tensor(self, quant: str, layers: Sequence[int], name: str, shape: tuple[int, ...]) -> TensorInfo:
        """Describe a tensor of a model of these layers, with the type that llama.cpp's mixture `quant` gives it."""
        number, plain = _split(name)
        layer = 0 if number is None else _of(layers, number)
        format = by_name(tensor_type(quant, plain, shape, layer, self._mixed))
        elements = int(np.prod(shape))
        return TensorInfo(name, shape, format.type_id, 0, 0, elements // format.block * format.nbytes)

    def whole(self, quant: str) -> "Synthetic":
        """Make a synthetic model of all layers."""
        if quant not in self._whole:
            self._whole[quant] = Synthetic(self, quant)
        return self._whole[quant]


def _split(name: str) -> tuple[int | None, str]:
    """The number of a tensor's layer, None beside the layers, and its name within it."""
    if not name.startswith("blk."):
        return None, name
    _, number, plain = name.split(".", 2)
    return int(number), plain


def _of(layers: Sequence[int], number: int) -> int:
    """The model's layer that stands there; a block of multi-token prediction behind all is as the last one."""
    return layers[min(number, len(layers) - 1)]


def find_shape(name: str) -> Shape:
    """Return the shape of a model of the catalogue. Raises SeventyError if the engine cannot run it."""
    model = find_model(name)
    if model.arch not in models.architectures():
        raise SeventyError(
            "--synthetic knows the architectures that this engine runs, {architectures}, and {name} is {arch}; take "
            "another, llama-3.3-70b say",
            architectures=", ".join(models.architectures()), name=model.name, arch=model.arch,
        )
    found = released(model)
    models.find(model.arch).config(found.metadata)
    return Shape(model.name, found.metadata, found.tensors, found.of_layers)


def choose_layers(shape: Shape, quant: str, count: int) -> list[int]:
    """Choose `count` layers of the model, each kind and size in proportion to its share of all layers.

    Layers of a kind have the same tensors and the same cache. Each is placed where the architecture has its kind in a
    model of `count` layers: dense ones first, windows alternating.
    """
    if count == shape.layers:
        return list(range(count))
    whole = shape.whole(quant)
    if shape.listed:
        return _choose_listed(whole, count)
    dense = int(shape.metadata.get(f"{shape.architecture}.{_DENSE_FIRST}", 0))
    first = min(max(1, round(count * dense / shape.layers)), dense, count - 1)
    # Any layers, as long as so many of them are dense.
    made = Synthetic(shape, quant, [0] * first + [shape.layers - 1] * (count - first))
    chosen = [0] * count
    for kind in {made.kind(place) for place in range(count)}:
        places = [place for place in range(count) if made.kind(place) == kind]
        layers = [layer for layer in range(shape.layers) if whole.kind(layer) == kind]
        for place, layer in zip(places, _by_size(whole, layers, len(places)), strict=True):
            chosen[place] = layer
    return chosen


def _choose_listed(whole: "Synthetic", count: int) -> list[int]:
    """`count` layers where any layer may stand anywhere; none without those whose keys and values it attends to."""
    by_kind: dict[Hashable, list[int]] = {}
    for layer in range(whole.shape.layers):
        by_kind.setdefault(whole.kind(layer), []).append(layer)
    taken = dict.fromkeys(by_kind, 0)
    for number in range(1, count + 1):
        possible = [
            kind
            for kind, layers in by_kind.items()
            if not isinstance(spec := whole.caches[layers[0]], Shared) or taken[whole.kind(spec.layer)]
        ]
        # One of each, where there are enough, and then the kind that is furthest behind its share.
        lacking = [kind for kind in possible if not taken[kind] and count >= len(by_kind)]
        kind = max(
            lacking or possible, key=lambda kind: number * len(by_kind[kind]) / whole.shape.layers - taken[kind]
        )
        taken[kind] += 1
    return sorted(layer for kind, layers in by_kind.items() for layer in _by_size(whole, layers, taken[kind]))


def _by_size(whole: "Synthetic", layers: list[int], count: int) -> list[int]:
    """`count` of the layers, of each size as many as their share asks for."""
    by_size: dict[int, list[int]] = {}
    for layer in layers:
        by_size.setdefault(whole.packed_bytes(layer), []).append(layer)
    chosen: list[int] = []
    taken = dict.fromkeys(by_size, 0)
    for number in range(1, count + 1):
        # The size that is furthest behind its share.
        size = max(by_size, key=lambda size: number * len(by_size[size]) / len(layers) - taken[size])
        chosen.append(by_size[size][taken[size]])
        taken[size] += 1
    return sorted(chosen)


def fitting_layers(shape: Shape, quant: str, context: int, room_bytes: int, wanted: int | None) -> int:
    """Return how many layers to make: all if they fit, else a few that do; exactly `wanted` if given.

    Raises SeventyError if not even those fit.
    """
    if wanted is not None and wanted > shape.layers:
        raise SeventyError(
            "{name} has {layers} layers, not {wanted}; take fewer, or leave --layers out",
            name=shape.name, layers=shape.layers, wanted=wanted,
        )

    def need(count: int) -> int:
        return Synthetic(shape, quant, choose_layers(shape, quant, count)).footprint.need(context).total

    fit = bisect_right(range(1, shape.layers + 1), room_bytes, key=need)
    if wanted is None and fit == shape.layers:
        return shape.layers
    if fit < (wanted or 1):
        raise SeventyError(
            "{wanted} of {layers} layers of {name} {quant} need {need} of memory and {room_bytes} are free for "
            "it; close other programs, or take fewer --layers or another --quant",
            wanted=wanted or 1, layers=shape.layers, name=shape.name, quant=quant, need=size(need(wanted or 1)),
            room_bytes=size(room_bytes),
        )
    # Half of what is free: the user did not ask for more, and others live here, too.
    return wanted or min(_ENOUGH_LAYERS, max(1, fit // 2), shape.layers - 1)


class Synthetic:
    """Tensors of a shape with random weights, as `gguf.source.Source` has them.

    `program` is that of the model, which says what it reads; it cannot be run.
    """

    def __init__(self, shape: Shape, quant: str, layers: Sequence[int] | None = None, mtp: bool = False) -> None:
        """`layers` are the model's own that are made, all when not given; with `mtp`, a block to draft with, too."""
        self.shape, self.quant = shape, quant_name(quant)
        self.layers = list(range(shape.layers)) if layers is None else list(layers)
        self.path = f"{shape.name} {self.quant} (random weights)"
        self.metadata: Mapping[str, Any] = shape.of_layers(self.layers, mtp)
        self._tiles: dict[tuple[int, float], NDArray[np.uint8]] = {}
        self.tensors: Mapping[str, TensorInfo] = {}
        weights = Outline(
            self,
            lambda name, shape: self.shape.tensor(self.quant, self.layers, name, shape),
            lambda name: self.shape.has(name, self.layers),
        )
        self.program: Program = outline(self.metadata, weights, mtp)
        self.tensors = weights.tensors
        self._of_layer: dict[int | None, list[TensorInfo]] = {}
        for info in self.tensors.values():
            self._of_layer.setdefault(_split(info.name)[0], []).append(info)

    @property
    def caches(self) -> Sequence[CacheSpec]:
        return self.program.pages.specs

    @property
    def footprint(self) -> Footprint:
        """The memory it needs."""
        config = models.find(self.shape.architecture).config(self.metadata)
        return footprint(self, config, self.caches)

    def kind(self, layer: int) -> Hashable:
        """Return a key that is the same for layers that differ only in their tensors' types."""
        shapes = frozenset((_split(info.name)[1], info.shape) for info in self._of_layer[layer])
        cache = self.caches[layer]
        return shapes, ("shared", self.caches[cache.layer]) if isinstance(cache, Shared) else cache

    def packed_bytes(self, layer: int) -> int:
        """Return the bytes of memory that the tensors of a layer take."""
        return sum(packed_bytes(info) for info in self._of_layer[layer])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, as a file has them."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def layer_scale(self) -> float:
        """The bytes read per token of the whole model, divided by those of the layers made."""
        whole = self.shape.whole(self.quant).program
        return whole.bytes_of_one_row(outputs=False) / self.program.bytes_of_one_row(outputs=False)

    def _tile(self, info: TensorInfo) -> NDArray[np.uint8]:
        # Products are as large as what goes in. So is the embedding: beside a smaller one attention, which rows of a
        # prompt have in common, would send them to the same experts.
        weights = 1.0 if info.name == "token_embd.weight" else info.shape[-1] ** -0.5
        key = info.type, weights
        if key not in self._tiles:
            self._tiles[key] = random_blocks(formats()[info.type], _TILE_BLOCKS, weights).reshape(-1)
        return self._tiles[key]

    def pread(
        self, info: TensorInfo, start: int, nbytes: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Return random blocks, the same each time; vectors are ones, but ssm_a is -1, so that states stay finite."""
        if out is None:
            out = np.empty(nbytes, np.uint8)
        if len(info.shape) == 1:
            assert start == 0, f"{info.name}: vectors are read whole"
            number = -1 if info.name.endswith("ssm_a") else 1
            out[:] = np.full(info.shape[0], number, np.float32).view(np.uint8)[:nbytes]
            return out
        tile = self._tile(info)
        # Every tensor begins elsewhere: gate and up that are the same would send all rows to the same experts.
        first = crc32(info.name.encode()) % _TILE_BLOCKS * formats()[info.type].nbytes
        at, done = (first + start) % len(tile), 0
        while done < nbytes:
            part = min(len(tile) - at, nbytes - done)
            out[done : done + part] = tile[at : at + part]
            at, done = 0, done + part
        return out

    def read(self, info: TensorInfo) -> NDArray[np.uint8]:
        return self.pread(info, 0, info.nbytes)

    def reopened(self) -> Self:
        return self

    def fileno(self, info: TensorInfo) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._tiles.clear()


def random_blocks(format: Format, n: int, size: float, seed: int = 0) -> NDArray[np.uint8]:
    """Make [n, nbytes] u8: random bits with factors that give the weights a root mean square of `size`."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n, format.nbytes), dtype=np.uint8)
    # Over two octaves: where a format rounds factors to powers of two, their mean is that of those wanted. And of both
    # signs: some formats' weights are positive on average, and with such weights all rows would go to the same experts.
    factors = rng.standard_normal(n) if format.block == 1 else rng.choice([-1, 1], n) * 2.0 ** rng.uniform(-1, 1, n)
    for _ in range(2):
        format.set_factors(blocks, factors.astype(np.float32))
        factors *= size / float(np.sqrt(np.mean(np.square(format.dequantize(blocks)))))
    return blocks
