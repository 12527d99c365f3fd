"""Which tensor type llama.cpp's mixtures give each matrix of a dense model.

The rules of `llama_tensor_get_type` in src/llama-quant.cpp of ggml-org/llama.cpp, with an importance matrix, as
most published files have.
"""

from seventy.errors import SeventyError

_BASE = {
    "Q2_K": "Q2_K", "Q3_K_M": "Q3_K", "IQ4_XS": "IQ4_XS", "Q4_0": "Q4_0", "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K", "Q8_0": "Q8_0", "F16": "F16", "IQ1_S": "IQ1_S",
    "IQ1_M": "IQ1_M", "IQ2_XXS": "IQ2_XXS", "IQ2_XS": "IQ2_XS", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S",
    "IQ3_XXS": "IQ3_XXS", "IQ3_S": "IQ3_S", "IQ3_M": "IQ3_S", "TQ1_0": "TQ1_0", "TQ2_0": "TQ2_0",
}  # fmt: skip
# What takes the place of a type whose blocks of 256 do not divide a row.
_NARROW = {
    "Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL", "IQ3_S": "IQ4_NL", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0",
}  # fmt: skip
# What mixtures of 1 and 2 bits take for the matrices that need more.
_MORE = {"IQ1_S": "Q2_K", "IQ1_M": "Q2_K", "IQ2_XXS": "Q2_K", "IQ2_XS": "Q2_K", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}
_EMBEDDINGS = {**_MORE, "IQ3_XXS": "IQ3_S", "TQ1_0": "Q4_K", "TQ2_0": "Q4_K"}
_ATTENTION_OUTPUTS = {
    "Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S",
    "IQ3_XXS": "IQ3_S", "IQ3_M": "Q4_K",
}  # fmt: skip


def quant_name(quant: str) -> str:
    """The mixture in its usual spelling. Raises SeventyError for one whose rules are not known here."""
    if quant.upper() not in _BASE:
        raise SeventyError(f"the tensor types of {quant} are not known; known are {', '.join(_BASE)}")
    return quant.upper()


def more_bits(layer: int, layers: int) -> bool:
    """The first eighth, the last eighth and every third layer between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _attention_values(quant: str, layer: int, layers: int, group: int) -> str:
    if quant in _MORE:
        return "Q4_K" if group >= 4 else _MORE[quant]
    kind = _BASE[quant]
    if quant == "IQ3_M" or (quant in ("IQ3_XXS", "IQ3_S") and group >= 4):
        kind = "Q4_K"
    elif quant == "Q2_K":
        kind = "Q4_K" if group >= 4 else "Q3_K"
    elif quant == "Q3_K_M":
        kind = "Q5_K" if layer < 2 else "Q4_K"
    elif quant == "IQ4_XS" and group >= 4:
        kind = "Q5_K"
    elif quant in ("Q4_K_M", "Q5_K_M") and more_bits(layer, layers):
        kind = "Q6_K"
    elif quant == "Q4_K_S" and layer < 4:
        kind = "Q5_K"
    # What llama.cpp takes for a 70B has small attn_v, and bits to spare for them.
    return "Q5_K" if layers == 80 and group > 1 and kind in ("Q3_K", "Q4_K") else kind


def _feed_forward_down(quant: str, layer: int, layers: int) -> str:
    if layer < layers // 8 and quant in (*_MORE, "IQ3_M"):
        return _MORE.get(quant, "Q4_K")
    if quant == "Q2_K":
        return "Q3_K"
    if quant == "Q3_K_M":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if quant in ("Q4_0", "Q4_K_S") and layer < layers // 8:
        return "Q4_1" if quant == "Q4_0" else "Q5_K"
    return "Q6_K" if quant in ("Q4_K_M", "Q5_K_M") and more_bits(layer, layers) else _BASE[quant]


def tensor_type(quant: str, matrix: str, columns: int, layer: int, layers: int, group: int) -> str:
    """The type of `matrix` ("attn_v", "output"; of a tied model "output" for its embedding) of this layer.

    `columns` is its row length, `group` how many query heads share one of keys and values.
    """
    kind = _BASE[quant]
    if matrix == "output" and quant not in ("Q8_0", "F16"):
        if columns % 256:
            return "Q8_0"
        return "Q5_K" if quant in (*_MORE, "IQ3_XXS") else "Q6_K"
    if matrix == "attn_v":
        kind = _attention_values(quant, layer, layers, group)
    elif matrix == "ffn_down":
        kind = _feed_forward_down(quant, layer, layers)
    elif matrix == "attn_output":
        kind = _ATTENTION_OUTPUTS.get(quant, kind)
    elif matrix == "token_embd":
        kind = _EMBEDDINGS.get(quant, kind)
    elif quant == "IQ3_XXS" and matrix in ("attn_q", "attn_k"):
        kind = "IQ2_S"
    return _NARROW.get(kind, kind) if columns % 256 else kind
