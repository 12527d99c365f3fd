"""Which tensor type llama.cpp's mixtures give each tensor of a model.

The rules of `llama_tensor_get_type` in src/llama-quant.cpp of ggml-org/llama.cpp, with an importance matrix, as
most published files have. Experts have the types of the dense matrices they stand for.
"""

from dataclasses import dataclass

from seventy.errors import SeventyError

_BASE = {
    "Q2_K": "Q2_K", "Q3_K_M": "Q3_K", "IQ4_XS": "IQ4_XS", "Q4_0": "Q4_0", "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K", "Q8_0": "Q8_0", "MXFP4_MOE": "Q8_0",
    "F16": "F16",
}  # fmt: skip
# What takes the place of a type whose blocks of 256 do not divide a row.
_NARROW = {
    "Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip
_OTHER_NAMES = {"MXFP4": "MXFP4_MOE"}
# With eight experts attention is small beside them: 128 MB more of Mixtral 8x7B for attn_k and attn_v.
_EIGHT = 8


@dataclass(frozen=True, slots=True)
class Mixed:
    """What the rules ask of a model. `group` is how many query heads share one of keys and values.

    `tied`: the embedding is also the head. `experts` is 0 of a dense model.
    """

    architecture: str
    layers: int
    group: int
    experts: int
    tied: bool


def quant_name(quant: str) -> str:
    """The mixture in its usual spelling. Raises SeventyError for one whose rules are not known here."""
    name = _OTHER_NAMES.get(quant.upper(), quant.upper())
    if name not in _BASE:
        raise SeventyError(f"the tensor types of {quant} are not known; known are {', '.join(_BASE)}")
    return name


def more_bits(layer: int, layers: int) -> bool:
    """The first eighth, the last eighth and every third layer between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def tensor_type(quant: str, name: str, shape: tuple[int, ...], layer: int, model: Mixed) -> str:
    """The type of a tensor ("attn_v.weight", "ffn_down_exps.weight", "token_embd.weight") of this layer."""
    if not name.endswith(".weight") or len(shape) < 2 or name.startswith("ffn_gate_inp"):
        return "F32"
    # Trained so: no file has them otherwise.
    if model.architecture == "gpt-oss" and name.endswith("_exps.weight"):
        return "MXFP4"
    return _narrow(_wanted(quant, name, len(shape), layer, model), shape[-1])


def _narrow(kind: str, columns: int) -> str:
    return _NARROW.get(kind, kind) if columns % 256 else kind


def _wanted(quant: str, name: str, dimensions: int, layer: int, model: Mixed) -> str:
    if quant == "F16":
        return "F16"
    if quant == "MXFP4_MOE":
        return "MXFP4" if dimensions > 2 else "Q8_0"
    if name == ("token_embd.weight" if model.tied else "output.weight"):
        return "Q8_0" if quant == "Q8_0" else "Q6_K"
    if name == "attn_v.weight":
        return _attention_values(quant, layer, model)
    if name == "attn_k.weight" and model.experts == _EIGHT:
        return "Q8_0"
    if name.startswith("ffn_down"):
        return _feed_forward_down(quant, layer, model.layers)
    if name == "attn_output.weight":
        return _attention_output(quant, model.experts)
    return _BASE[quant]


def _attention_values(quant: str, layer: int, model: Mixed) -> str:
    kind = _BASE[quant]
    if model.experts == _EIGHT:
        return "Q8_0"
    if quant == "Q2_K":
        kind = "Q4_K" if model.group >= 4 else "Q3_K"
    elif quant == "Q3_K_M":
        kind = "Q5_K" if layer < 2 else "Q4_K"
    elif quant == "IQ4_XS" and model.group >= 4:
        kind = "Q5_K"
    elif quant in ("Q4_K_M", "Q5_K_M") and more_bits(layer, model.layers):
        kind = "Q6_K"
    elif quant == "Q4_K_S" and layer < 4:
        kind = "Q5_K"
    # What llama.cpp takes for a 70B has small attn_v, and bits to spare for them.
    return "Q5_K" if model.layers == 80 and model.group > 1 and kind in ("Q3_K", "Q4_K") else kind


def _attention_output(quant: str, experts: int) -> str:
    if experts == _EIGHT and _BASE[quant] in ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K"):
        return "Q5_K"
    return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K"}.get(quant, _BASE[quant])


def _feed_forward_down(quant: str, layer: int, layers: int) -> str:
    if quant == "Q2_K":
        return "Q3_K"
    if quant == "Q3_K_M":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if quant in ("Q4_0", "Q4_K_S") and layer < layers // 8:
        return "Q4_1" if quant == "Q4_0" else "Q5_K"
    return "Q6_K" if quant in ("Q4_K_M", "Q5_K_M") and more_bits(layer, layers) else _BASE[quant]
