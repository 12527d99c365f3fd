"""The models: parameters, layers, file sizes per quant and bytes read for one token."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from seventy.catalog.rows import table
from seventy.errors import SeventyError
from seventy.language import t

QUANTS = ("Q2_K", "Q3_K_M", "IQ4_XS", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16")
# Bits per weight of whole files, from llama.cpp's mixtures on an 8B model (tools/quantize/README.md there);
# used only for a quant the catalogue has no size for.
BITS_PER_WEIGHT = {
    "IQ1_S": 2.0, "IQ1_M": 2.15, "IQ2_XXS": 2.38, "IQ2_XS": 2.59, "IQ2_S": 2.74, "IQ2_M": 2.93, "Q2_K_S": 2.97,
    "Q2_K": 3.16, "Q2_K_L": 3.2, "IQ3_XXS": 3.25, "IQ3_XS": 3.5, "Q3_K_S": 3.64, "IQ3_S": 3.66, "IQ3_M": 3.76,
    "Q3_K_M": 4.0, "Q3_K_L": 4.3, "IQ4_XS": 4.46, "IQ4_NL": 4.68, "Q4_0": 4.66, "Q4_K_S": 4.67, "Q4_K_M": 4.89,
    "Q4_1": 5.13, "Q5_0": 5.57, "Q5_K_S": 5.57, "Q5_K_M": 5.7, "Q5_1": 6.0, "Q6_K": 6.56, "Q8_0": 8.5,
    "F16": 16.0, "BF16": 16.0, "F32": 32.0, "MXFP4": 4.35, "Q40": 4.5, "NVFP4": 4.6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Model:
    """A model: sizes in GB (1e9 bytes) per quant, bytes read per token likewise, KV cache in KiB per token at f16.

    `queries` and `keys` are the widths of all heads, `feed_forward` is that of a dense layer's gate, `expert_width` of
    one expert's; a token uses `experts_used` of them, shared ones included.
    """

    name: str
    arch: str
    params_b: float
    active_params_b: float
    layers: int | None
    context: int | None
    n_expert: int | None
    kv_kib_per_token: float | None
    hidden: int | None
    queries: int | None
    keys: int | None
    feed_forward: int | None
    expert_width: int | None
    experts_used: int
    vocabulary: int | None
    size_gb: dict[str, float]
    read_gb: dict[str, float]
    source: str
    date: str
    unsure: str

    def __post_init__(self) -> None:
        if not 0 < self.active_params_b <= self.params_b:
            raise ValueError(t(
                "{name}: active parameters {active_params_b} B of {params_b} B",
                name=self.name, active_params_b=self.active_params_b, params_b=self.params_b,
            ))
        if not self.size_gb:
            raise ValueError(t("{name}: no size for any quant", name=self.name))

    @property
    def mixture(self) -> bool:
        """Whether it reads only some experts per token. Gemma 4 E2B has tables of layers instead, left in the file."""
        return bool(self.n_expert)

    def size(self, quant: str) -> float:
        """The file's size in GB at this quant, estimated from bits per weight if the catalogue has no size."""
        quant = self._beside_experts(quant)
        if quant in self.size_gb:
            return self.size_gb[quant]
        if quant not in BITS_PER_WEIGHT:
            known = ", ".join(self.size_gb)
            raise SeventyError(
                "No size is known for {name} as {quant}; known are {known}.",
                name=self.name, quant=quant, known=known,
            )
        near = min(self.size_gb, key=lambda q: abs(BITS_PER_WEIGHT[q] - BITS_PER_WEIGHT[quant]))
        if self.arch == "gpt-oss":
            # Its experts are MXFP4 in every quant.
            return self.size_gb[near]
        return self.size_gb[near] * BITS_PER_WEIGHT[quant] / BITS_PER_WEIGHT[near]

    def _beside_experts(self, quant: str) -> str:
        """The quant that tells files apart: experts of gpt-oss are MXFP4 in all, the rest Q8_0 in those called so."""
        return "Q8_0" if self.arch == "gpt-oss" and quant == "MXFP4" else quant

    def read_per_token(self, quant: str) -> float:
        """Return the GB of weights read per token: without the embedding table, and of the active experts only."""
        quant = self._beside_experts(quant)
        if quant in self.read_gb:
            return self.read_gb[quant]
        if self.read_gb:
            near = min(self.read_gb, key=lambda q: abs(BITS_PER_WEIGHT[q] - BITS_PER_WEIGHT.get(quant, 4.8)))
            return self.size(quant) * self.read_gb[near] / self.size(near)
        return self.size(quant) * self.active_params_b / self.params_b


def _model(where: str, row: dict[str, str]) -> Model:
    def number(name: str, kind: type) -> Any:
        return kind(float(row[name])) if row[name] else None

    sizes = {q: float(row["gb_" + q]) for q in QUANTS if row["gb_" + q]}
    reads = {
        name.removeprefix("read_gb_per_token_"): float(value)
        for name, value in row.items()
        if name.startswith("read_gb_per_token_") and value
    }
    # Shapes are known whole or in part; 0 stands for what is not.
    heads, kv_heads, head_dim, dense, moe, active, shared = (
        number(name, int) or 0
        for name in ("heads", "kv_heads", "head_dim", "ffn", "moe_ffn", "n_expert_active", "n_expert_shared")
    )
    try:
        return Model(
            row["name"], row["arch"],
            float(row["params_b"]), float(row["active_params_b"]), number("layers", int), number("context", int),
            number("n_expert", int), number("kv_kib_per_token_f16", float), number("hidden", int),
            heads * head_dim or None, kv_heads * head_dim or None, dense or None, moe or None, active + shared,
            number("vocab", int), sizes, reads,
            row["source"], row["date"], row["unsure"],
        )  # fmt: skip
    except ValueError as error:
        raise SeventyError("{where}: {error}.", where=where, error=error) from None


@cache
def all_models() -> tuple[Model, ...]:
    return tuple(_model(where, row) for where, row in table("models.csv"))
