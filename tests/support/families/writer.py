"""Write tiny GGUF files with random weights, of any architecture and tensor type."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

import gguf
from tests.support.tiny import add_tokenizer

Array = np.ndarray
# A tensor type for all matrices, or each one's by the first of these parts that its name has; "" is part of any.
Types = str | Mapping[str, str]

# The half-precision factors in a block of the types that gguf-py cannot quantise: their offsets, and how many times the
# first factor each is, so that a row's weights have a mean near zero. Where not listed, one factor at 0.
_HALVES = {
    "Q2_K": {80: 1.0, 82: 1.5}, "Q3_K": {108: 1.0}, "Q4_K": {0: 1.0, 2: 7.5}, "Q5_K": {0: 1.0, 2: 15.5},
    "Q6_K": {208: 1.0}, "TQ1_0": {52: 1.0}, "TQ2_0": {64: 1.0},
}  # fmt: skip
# What llama.cpp writes instead where a row is not a multiple of 256.
_SMALL = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0",
}  # fmt: skip


def _kind(format: str, columns: int) -> gguf.GGMLQuantizationType:
    """The tensor type of a matrix in a file of this format: its own, or llama.cpp's fallback for short rows."""
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format]]
    if columns % block:
        format = _SMALL.get(format, "IQ4_NL") if block == 256 and columns % 32 == 0 else "F16"
    return gguf.GGMLQuantizationType[format]


def _random_blocks(kind: gguf.GGMLQuantizationType, shape: tuple[int, ...], std: float, rng: Any) -> Array:
    """Random bytes with half-precision factors that give weights of this standard deviation."""
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // block, nbytes), dtype=np.uint8)

    def set_factors(factors: Array) -> None:
        if kind.name == "IQ1_M":
            # Its factor is spread over the highest four bits of the last four 16-bit fields.
            fields = factors.astype(np.float16)[:, None].view(np.uint8)
            for i, at in enumerate(range(49, 56, 2)):
                nibble = fields[:, i // 2] >> (i % 2 * 4) & 15
                blocks[:, at] = blocks[:, at] & 15 | nibble << 4
            return
        if kind.name == "NVFP4":
            # Factors of 8 bits and no sign, of 16 weights each: the nearest from below.
            blocks[:, :4] = np.searchsorted(_ue4m3(), np.abs(factors), side="right")[:, None] - 1
            return
        for offset, times in _HALVES.get(kind.name, {0: 1.0}).items():
            blocks[:, offset : offset + 2] = (factors * times).astype(np.float16)[:, None].view(np.uint8)

    factors = rng.uniform(0.5, 1, len(blocks)) * rng.choice([-1, 1], len(blocks))
    set_factors(factors)
    set_factors(factors * std / gguf.dequantize(blocks, kind).std())
    return blocks.reshape(*shape[:-1], -1)


def _ue4m3() -> Array:
    """The factors of NVFP4 in ascending order: 0 to 448 and not 0x7F, which is 0 again."""
    blocks = np.zeros((127, 36), np.uint8)
    blocks[:, 0], blocks[:, 4] = np.arange(127), 2
    return gguf.dequantize(blocks, gguf.GGMLQuantizationType.NVFP4)[:, 0]


class Writer:
    """Writes one random GGUF; 2-D and 3-D matrices are in `format`, all else in F32.

    With `scales`, every matrix of which llama.cpp reads a `.scale` companion gets one that is not 1, and where it is
    NVFP4 an `.input_scale`, too, which no CPU has a use for.
    """

    def __init__(self, path: Path, architecture: str, seed: int, format: Types, scales: bool = False) -> None:
        self.path, self.format, self.scales = path, format, scales
        self.rng = np.random.default_rng(seed)
        self._file = gguf.GGUFWriter(str(path), architecture)
        self._architecture = architecture
        self.vocabulary = len(add_tokenizer(self._file))
        self._directions = np.zeros((0, 0), np.float32)

    def keys(self, values: dict[str, Any]) -> Self:
        """Add metadata under the architecture's name; None leaves a key out, a list becomes an array."""
        for key, value in values.items():
            add: dict[type, Callable[[str, Any], None]] = {
                bool: self._file.add_bool, int: self._file.add_uint32, float: self._file.add_float32,
                str: self._file.add_string, list: self._file.add_array,
            }  # fmt: skip
            if value is not None:
                add[type(value)](f"{self._architecture}.{key}", value)
        return self

    def yarn(self, factor: float | None, original: int = 64, **more: float | None) -> None:
        """Add rope.scaling.* keys, if there is a factor: prompts of more than `original` tokens feel it."""
        if factor:
            keys = {"type": "yarn", "factor": factor, "original_context_length": original, **more}
            self.keys({f"rope.scaling.{key}": value for key, value in keys.items()})

    def add(self, name: str, values: Array) -> None:
        self._file.add_tensor(name, np.ascontiguousarray(values, np.float32))

    def vector(self, name: str, length: int, low: float = 0.5, high: float = 1.5) -> None:
        self.add(name, self.rng.uniform(low, high, length))

    def biases(self, name: str, *shape: int, size: float = 0.5) -> None:
        self.add(name, self.rng.standard_normal(shape) * size)

    def matrix(self, name: str, *shape: int, gain: float = 1.0, scaled: bool = False) -> None:
        """Random weights [rows, columns] or [experts, rows, columns] that keep the size of a vector, times `gain`.

        `scaled` says that llama.cpp knows a `.scale` companion of this matrix, of all or of each expert.
        """
        std = gain * shape[-1] ** -0.5
        if scaled and self.scales:
            scale = self.rng.uniform(0.6, 1.4, shape[0] if len(shape) == 3 else 1)
            self.add(name.replace(".weight", ".scale"), scale)
            if self._kind(name, shape[-1]).name == "NVFP4":
                self.add(name.replace(".weight", ".input_scale"), 100 * scale)
        self.store(name, self.rng.standard_normal(shape) * std)

    def _kind(self, name: str, columns: int) -> gguf.GGMLQuantizationType:
        types = {"": self.format} if isinstance(self.format, str) else self.format
        return _kind(next(type for part, type in types.items() if part in name), columns)

    def store(self, name: str, values: Array, exact: bool = False) -> None:
        """Values in the file's format; where `gguf` cannot quantise to it, random ones of the same size.

        With `exact` these values in Q8_0 instead.
        """
        values = np.ascontiguousarray(values, np.float32)
        kind = self._kind(name, values.shape[-1])
        try:
            data = gguf.quantize(values, kind)
        except NotImplementedError:
            if exact:
                kind = gguf.GGMLQuantizationType.Q8_0
                data = gguf.quantize(values, kind)
            else:
                data = _random_blocks(kind, values.shape, float(values.std()), self.rng)
        self._file.add_tensor(name, data, raw_dtype=kind)

    def embedding_and_head(
        self, hidden: int, experts: int = 0, tied: bool = False, norm: str = "output_norm", multiplier: float = 1.0
    ) -> None:
        """token_embd, the last norm and, if not `tied`, output; logits have a standard deviation of about 4.

        Random routers would have the second and the third best expert nearly tied in one row of sixty a layer. So each
        token leans to two of as many directions as there are experts, and our routers (`router`) look along these, in
        another order in each layer. They lie in the first 32 elements, which a tied head hardly looks at; where `gguf`
        cannot quantise to the file's format, the embedding is Q8_0 for their sake.

        `multiplier` is what the architecture multiplies embeddings with.
        """
        values = self.rng.standard_normal((self.vocabulary, hidden)) * (4 * hidden**-0.5 if tied else 1.0)
        self._directions = np.zeros((experts, hidden))
        self._directions[:, :32] = np.linalg.qr(self.rng.standard_normal((32, experts)))[0].T
        for row in values if experts else ():
            row += self.rng.uniform(7, 11, 2) @ self._directions[self.rng.choice(experts, 2, replace=False)]
        self.store("token_embd.weight", values / multiplier, exact=experts > 0)
        weights = self.rng.uniform(0.5, 1.5, hidden)
        if tied:
            weights *= multiplier
        if tied and experts:
            weights[:32] *= 0.05
        self.add(f"{norm}.weight", weights)
        if not tied:
            self.matrix("output.weight", self.vocabulary, hidden, gain=4.0)

    def router(self, name: str, gain: float = 6.0) -> None:
        """ffn_gate_inp of one layer: the embedding's directions in another order, and noise; always F32."""
        experts, hidden = self._directions.shape
        noise = self.rng.standard_normal((experts, hidden)) * hidden**-0.5
        self.add(name, (self._directions[self.rng.permutation(experts)] + 0.5 * noise) * gain * hidden**-0.5)

    def experts(
        self, block: str, hidden: int, width: int, experts: int, fused: bool = False, gain: float = 1.0
    ) -> None:
        """ffn_gate_exps, ffn_up_exps and ffn_down_exps, or the first two as one ffn_gate_up_exps."""
        for name, rows in ({"gate_up": 2 * width} if fused else {"gate": width, "up": width}).items():
            self.matrix(f"{block}ffn_{name}_exps.weight", experts, rows, hidden, gain=gain, scaled=not fused)
        self.matrix(f"{block}ffn_down_exps.weight", experts, hidden, width, gain=1 / gain, scaled=True)

    def feed_forward(self, block: str, hidden: int, width: int, suffix: str = "") -> None:
        """ffn_gate, ffn_up and ffn_down; `suffix` "_shexp" for a shared expert."""
        for name in ("gate", "up"):
            self.matrix(f"{block}ffn_{name}{suffix}.weight", width, hidden, scaled=True)
        self.matrix(f"{block}ffn_down{suffix}.weight", hidden, width, scaled=True)

    def qkv(self, block: str, hidden: int, q: int, kv: int, fused: bool = False, biases: bool = False) -> None:
        """attn_q, attn_k and attn_v, or all rows in one attn_qkv."""
        for name, rows in ({"qkv": q + 2 * kv} if fused else {"q": q, "k": kv, "v": kv}).items():
            self.matrix(f"{block}attn_{name}.weight", rows, hidden, scaled=True)
            if biases:
                self.biases(f"{block}attn_{name}.bias", rows)

    def nextn(self, block: str, hidden: int, own: bool = False) -> None:
        """What a block of multi-token prediction has besides a layer's tensors; with `own`, an embedding and a head."""
        self.matrix(f"{block}nextn.eh_proj.weight", hidden, 2 * hidden)
        for name in ("enorm", "hnorm", "shared_head_norm"):
            self.vector(f"{block}nextn.{name}.weight", hidden)
        if own:
            self.matrix(f"{block}nextn.embed_tokens.weight", self.vocabulary, hidden)
            self.matrix(f"{block}nextn.shared_head_head.weight", self.vocabulary, hidden, gain=4.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self._file.write_header_to_file()
            self._file.write_kv_data_to_file()
            self._file.write_tensors_to_file()
        self._file.close()
