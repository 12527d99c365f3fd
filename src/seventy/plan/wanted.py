"""The model a person wants to run: from the catalogue, from bare numbers, or from a GGUF file."""

import math
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from seventy.catalog.models import BITS_PER_WEIGHT, find_model
from seventy.errors import SeventyError
from seventy.plan.roofline import GIB, Load, guess_layers

if TYPE_CHECKING:
    from seventy.gguf.source import Source


def catalogue_load(name: str, quant: str) -> Load:
    """A model of the catalogue at a quant, say Q4_K_M."""
    model = find_model(name)
    known = {q.upper(): q for q in (*model.size_gb, *BITS_PER_WEIGHT)}
    if quant.upper() not in known:
        raise SeventyError(f"No quant {quant!r} is known; known are {', '.join(dict.fromkeys(known.values()))}.")
    quant = known[quant.upper()]
    return Load(
        model.name, quant, model.params_b, model.active_params_b, model.size(quant), model.read_per_token(quant),
        (model.kv_kib_per_token or 0.0) * 1024, model.layers or guess_layers(model.params_b, model.active_params_b),
    )  # fmt: skip


def bare_load(params_b: float, active_params_b: float | None, weights_gib: float, quant: str) -> Load:
    """A model known only by its parameters (in billions) and the size of its weights (GiB)."""
    if params_b <= 0 or weights_gib <= 0:
        raise SeventyError(f"--params {params_b:g} and --weights-gib {weights_gib:g} must both be more than zero.")
    active = active_params_b if active_params_b is not None else params_b
    if not 0 < active <= params_b:
        raise SeventyError(f"--active-params {active:g} must be more than zero and at most --params {params_b:g}.")
    file_gb = weights_gib * GIB
    return Load(
        f"{params_b:g}B model", quant, params_b, active, file_gb, file_gb * active / params_b,
        0.0, guess_layers(params_b, active),
    )  # fmt: skip


def _quant_of(stem: str) -> str:
    """The quant a file's name tells, as nearly all do: "model-Q4_K_M" or "model.i1-IQ2_XXS"."""
    found = re.findall(r"(?<![a-z])((?:i?q\d[a-z0-9_]*|b?f16|f32|mxfp4))(?![a-z0-9])", stem.lower())
    return str(found[-1]).upper() if found else stem


def gguf_load(file: "Source") -> Load:
    """An open GGUF file: sizes from its tensor table, KV cache from its metadata."""
    if not file.tensors:
        raise SeventyError(f"{file.path} has no tensors, a vocabulary at most; get the whole model")
    meta, arch = file.metadata, str(file.metadata.get("general.architecture", ""))

    def number(key: str, otherwise: float) -> float:
        """What the file says, of a list (one figure per layer) the highest; `otherwise` where it is no number."""
        value: Any = meta.get(f"{arch}.{key}")
        if hasattr(value, "__len__") and not isinstance(value, str):
            value = max(value, default=None)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else otherwise

    experts, used = number("expert_count", 0), number("expert_used_count", 0)
    total = expert = table = elements = expert_elements = 0.0
    for tensor in file.tensors.values():
        size, count = float(tensor.nbytes), 1.0
        for dimension in tensor.shape:
            count *= dimension
        total, elements = total + size, elements + count
        if "_exps" in tensor.name:
            expert, expert_elements = expert + size, expert_elements + count
        elif tensor.name == "token_embd.weight" and "output.weight" in file.tensors:
            table = size
    share = min(1.0, used / experts) if experts else 1.0
    layers = int(number("block_count", 0)) or guess_layers(elements / 1e9)
    heads = number("attention.head_count", 1)
    kv_heads = number("attention.head_count_kv", heads)
    head_width = number("attention.key_length", number("embedding_length", 0) / max(heads, 1))
    path = PurePath(file.path)
    return Load(
        str(meta.get("general.name", path.name)), _quant_of(path.stem), elements / 1e9,
        (elements - expert_elements * (1 - share)) / 1e9, total / 1e9, (total - table - expert * (1 - share)) / 1e9,
        layers * kv_heads * head_width * 2 * 2, layers,
    )  # fmt: skip
