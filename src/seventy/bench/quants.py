"""Which tensor type llama.cpp's mixtures give each tensor of a model.

The rules of `llama_tensor_get_type` in src/llama-quant.cpp of ggml-org/llama.cpp, with an importance matrix, as
most published files have. Experts have the types of the dense matrices they stand for.
"""

from dataclasses import dataclass

from seventy.errors import SeventyError

_BASE = {
    "Q2_K": "Q2_K", "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "IQ4_XS": "IQ4_XS",
    "IQ4_NL": "IQ4_NL", "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q5_0": "Q5_0",
    "Q5_1": "Q5_1", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K", "Q8_0": "Q8_0", "MXFP4_MOE": "Q8_0",
    "F16": "F16", "BF16": "BF16", "F32": "F32", "IQ1_S": "IQ1_S", "IQ1_M": "IQ1_M", "IQ2_XXS": "IQ2_XXS",
    "IQ2_XS": "IQ2_XS", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S", "IQ3_XXS": "IQ3_XXS", "IQ3_XS": "IQ3_S", "IQ3_S": "IQ3_S",
    "IQ3_M": "IQ3_S", "TQ1_0": "TQ1_0", "TQ2_0": "TQ2_0",
}  # fmt: skip
_UNQUANTISED = ("F16", "BF16", "F32")
# What takes the place of a type whose blocks of 256 do not divide a row.
_NARROW = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL", "IQ3_S": "IQ4_NL", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0",
}  # fmt: skip
# What mixtures of 1 and 2 bits take for the matrices that need more.
_MORE = {"IQ1_S": "Q2_K", "IQ1_M": "Q2_K", "IQ2_XXS": "Q2_K", "IQ2_XS": "Q2_K", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}
_EMBEDDINGS = {**_MORE, "IQ3_XXS": "IQ3_S", "TQ1_0": "Q4_K", "TQ2_0": "Q4_K"}
_ATTENTION_OUTPUTS = {
    "Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S",
    "IQ2_M": "IQ3_S", "IQ3_XXS": "IQ3_S", "IQ3_M": "Q4_K",
}  # fmt: skip
_FLOATS = ("ffn_gate_inp", "ssm_conv1d", "shortconv.conv")
# Those that take more for the output of attention where it is small beside eight experts.
_OUTPUTS_OF_EIGHT = (
    *_MORE, "Q2_K", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "Q3_K_S", "Q3_K_M", "IQ4_NL", "IQ4_XS", "Q4_K_S", "Q4_K_M",
)  # fmt: skip
# Queries and keys, and gate and up of the layers between the first and the last eighth, where they have fewer bits.
_QUERIES_AND_KEYS = {"IQ3_XXS": "IQ2_S", "IQ3_XS": "IQ3_XXS"}
_MIDDLE_GATES = {"IQ3_XS": "IQ3_XXS"}
# Values of which four heads of queries share one, and all others.
_GROUPED_VALUES = {
    "Q2_K": "Q4_K", "Q2_K_S": "Q4_K", "IQ3_XXS": "Q4_K", "IQ3_XS": "Q4_K", "IQ3_S": "Q4_K", "IQ4_NL": "Q5_K",
    "IQ4_XS": "Q5_K",
}  # fmt: skip
_LIKE_VALUES = ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight")
_VALUES = {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
# The second matrix of a feed-forward: in all layers, and in the first eighth of them.
_DOWN = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}
_FIRST_DOWN = {**_MORE, "Q2_K_S": "Q4_K", "IQ3_M": "Q4_K", "Q4_0": "Q4_1", "Q5_0": "Q5_1", "Q4_K_S": "Q5_K"}
_OTHER_NAMES = {"MXFP4": "MXFP4_MOE"}
# With eight experts attention is small beside them: 128 MB more of Mixtral 8x7B for attn_k and attn_v.
_EIGHT = 8


@dataclass(frozen=True, slots=True)
class Mixed:
    """The properties of a model that the mixture rules depend on. `group` is the query heads per KV head.

    `tied` means that the embedding is also the head. `experts` is 0 for a dense model.
    """

    architecture: str
    layers: int
    group: int
    experts: int
    tied: bool


def quant_name(quant: str) -> str:
    """Return the mixture in its usual spelling. Raises SeventyError for one whose rules are not known here."""
    name = _OTHER_NAMES.get(quant.upper(), quant.upper())
    if name not in _BASE:
        raise SeventyError(
            "the tensor types of {quant} are not known; known are {base}",
            quant=quant, base=", ".join(_BASE),
        )
    return name


def more_bits(layer: int, layers: int) -> bool:
    """Return whether llama.cpp gives the layer more bits: the first and last eighth, and every third layer between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def tensor_type(quant: str, name: str, shape: tuple[int, ...], layer: int, model: Mixed) -> str:
    """Return the type of a tensor ("attn_v.weight", "ffn_down_exps.weight", "token_embd.weight") of this layer."""
    if not name.endswith(".weight") or len(shape) < 2 or name.startswith(_FLOATS):
        return "F32"
    # As converters write it: it is not quantised.
    if name == "per_layer_model_proj.weight":
        return "BF16"
    # Trained so: no file has them otherwise.
    if model.architecture == "gpt-oss" and name.endswith("_exps.weight"):
        return "MXFP4"
    kind = _wanted(quant, name, shape, layer, model)
    return _NARROW.get(kind, kind) if shape[-1] % 256 else kind


def _wanted(quant: str, name: str, shape: tuple[int, ...], layer: int, model: Mixed) -> str:
    base = _BASE[quant]
    if quant in _UNQUANTISED:
        return quant
    if quant == "MXFP4_MOE":
        return "MXFP4" if len(shape) > 2 else "Q8_0"
    # The embeddings of layers have what the embedding has.
    name = "token_embd.weight" if name == "per_layer_token_embd.weight" else name
    if name == ("token_embd.weight" if model.tied else "output.weight"):
        if quant == "Q8_0" or shape[-1] % 256:
            return "Q8_0"
        return "Q5_K" if quant in (*_MORE, "IQ3_XXS") else "Q6_K"
    if name == "token_embd.weight":
        return _EMBEDDINGS.get(quant, base)
    if name in _LIKE_VALUES:
        return _attention_values(quant, layer, model)
    if name.startswith("attn_"):
        return _attention(quant, name, model)
    if name.startswith("ffn_down"):
        return _feed_forward_down(quant, layer, model)
    if name.startswith(("ffn_gate", "ffn_up")) and model.layers // 8 <= layer < 7 * model.layers // 8:
        return _MIDDLE_GATES.get(quant, base)
    return base


def _attention(quant: str, name: str, model: Mixed) -> str:
    base = _BASE[quant]
    if name in ("attn_k.weight", "attn_q.weight"):
        if name == "attn_k.weight" and model.experts == _EIGHT:
            return "Q4_K" if quant in _MORE else "Q8_0"
        return _QUERIES_AND_KEYS.get(quant, base)
    if name == "attn_output.weight":
        if model.experts == _EIGHT:
            return "Q5_K" if quant in _OUTPUTS_OF_EIGHT else base
        return _ATTENTION_OUTPUTS.get(quant, base)
    return base


def _attention_values(quant: str, layer: int, model: Mixed) -> str:
    grouped = model.group >= 4
    if quant in _MORE:
        return "Q4_K" if grouped or model.experts >= 4 else _MORE[quant]
    if model.experts == _EIGHT:
        return "Q8_0"
    kind = _GROUPED_VALUES[quant] if grouped and quant in _GROUPED_VALUES else _VALUES.get(quant, _BASE[quant])
    if quant == "Q3_K_M":
        kind = "Q5_K" if layer < 2 else "Q4_K"
    elif quant in ("Q4_K_M", "Q5_K_M") and more_bits(layer, model.layers):
        kind = "Q6_K"
    elif quant == "Q4_K_S" and layer < 4:
        kind = "Q5_K"
    # What llama.cpp takes for a 70B has small attn_v, and bits to spare for them.
    return "Q5_K" if model.layers == 80 and model.group > 1 and kind in ("Q3_K", "Q4_K") else kind


def _feed_forward_down(quant: str, layer: int, model: Mixed) -> str:
    more = more_bits(layer, model.layers)
    if quant == "Q3_K_M" and layer < model.layers // 16:
        return "Q5_K"
    if quant in ("Q4_K_M", "Q5_K_M") and more:
        return "Q6_K"
    if quant in _FIRST_DOWN and (layer < model.layers // 8 or (quant == "IQ3_M" and model.experts == _EIGHT and more)):
        return _FIRST_DOWN[quant]
    return _DOWN.get(quant, _BASE[quant])
