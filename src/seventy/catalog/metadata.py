"""What the GGUF files of released models say of their shape: metadata, and which optional tensors they have."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from seventy.catalog.models import Model
from seventy.catalog.rows import table
from seventy.errors import SeventyError

# Keys of GGUF and the columns of models.csv that hold them.
_COLUMNS = {
    "block_count": "layers", "context_length": "context", "embedding_length": "hidden", "vocab_size": "vocab",
    "feed_forward_length": "ffn", "attention.head_count": "heads", "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_dim", "attention.value_length": "head_dim", "expert_count": "n_expert",
    "expert_used_count": "n_expert_active", "expert_shared_count": "n_expert_shared",
    "expert_feed_forward_length": "moe_ffn",
}  # fmt: skip
_NEEDED = ("block_count", "embedding_length", "vocab_size", "context_length", "attention.head_count")


@dataclass(frozen=True, slots=True)
class Released:
    """A model's GGUF metadata, and the tensors it has of those that its architecture may have or lack.

    Tensors of a layer are named without `blk.N.`; those `of_layers` some layers have.
    """

    metadata: Mapping[str, Any]
    tensors: frozenset[str]
    of_layers: Mapping[str, tuple[bool, ...]]


def released(model: Model) -> Released:
    """Return what a model's released files say. Raises SeventyError where the catalogue does not know all of it."""
    metadata = released_metadata(model)
    if missing := [key for key in _NEEDED if f"{model.arch}.{key}" not in metadata]:
        raise SeventyError(
            "the catalogue does not know the {missing} of {name}; take another model",
            missing=missing[0], name=model.name,
        )
    tensors = {name for entry in _entries(model) for name in entry.get("tensors", ())}
    if model.name not in _data()["tied"]:
        tensors.add("output.weight")
    layers = metadata[f"{model.arch}.block_count"]
    of_layers = {
        name: tuple(_repeated(flags, layers))
        for entry in _entries(model)
        for name, flags in entry.get("tensors_of_layers", {}).items()
    }
    return Released(metadata, frozenset(tensors), of_layers)


def released_metadata(model: Model) -> dict[str, Any]:
    """Return what the catalogue knows of the metadata of a model's released files."""
    row = next(row for _, row in table("models.csv") if row["name"] == model.name)
    keys: dict[str, Any] = {"attention.layer_norm_rms_epsilon": 1e-5}
    keys |= {key: int(row[column]) for key, column in _COLUMNS.items() if row[column]}
    for entry in _entries(model):
        keys |= dict(_flat(entry.get("keys", {})))
    # One group of layers stands for all where a list is shorter than they are.
    layers = keys.get("block_count", 0)
    lists = {key: _repeated(value, layers) for key, value in keys.items() if layers and isinstance(value, list)}
    named = {f"{model.arch}.{key}": value for key, value in (keys | lists).items()}
    return {"general.architecture": model.arch} | named


def _repeated(group: list[Any], layers: int) -> list[Any]:
    return [group[layer % len(group)] for layer in range(layers)]


def _entries(model: Model) -> list[Mapping[str, Any]]:
    """Of its architecture and of itself."""
    return [_data()["architecture"].get(model.arch, {}), _data()["model"].get(model.name, {})]


def _flat(keys: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as keys with dots."""
    for name, value in keys.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@cache
def _data() -> dict[str, Any]:
    text = (files("seventy.catalog") / "data" / "metadata.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    known = {row["name"] for _, row in table("models.csv")}
    if unknown := [name for name in (*data["tied"], *data["model"]) if name not in known]:
        raise SeventyError("catalog/data/metadata.toml: models.csv has no model {unknown!r}.", unknown=unknown[0])
    return data
