"""Quants by the names that files have: Q4_K_M, UD-Q4_K_XL, IQ3_XXS, MXFP4; how many bits, of which tensor types.

Names and mixtures: llama.cpp's tools/quantize; `UD-` is Unsloth's, whose files keep some tensors wider.
"""

import re

_NAME = re.compile(
    r"(?<![a-z0-9])((?:ud[-_])?(?:i?q\d(?:_[a-z0-9]+)*|tq\d_\d|b?f16|f32|mxfp4(?:_moe)?|nvfp4))(?![a-z0-9])",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    r"(?:UD-)?(?:I?Q[1-8](?:_(?:0|1|[KSML]|XS|XXS|NL|K_(?:S|M|L|XL|XXL)))?|TQ[12]_0|B?F16|F32|MXFP4(?:_MOE)?|NVFP4)"
)
# Tensor types of a file beside F32, where its name does not say them; the others hold what they are called.
_TYPES: dict[str, tuple[str, ...]] = {
    "Q2_K": ("Q2_K", "Q3_K", "Q6_K"), "Q3_K": ("Q3_K", "Q4_K", "Q5_K", "Q6_K"), "Q4_K": ("Q4_K", "Q6_K"),
    "Q5_K": ("Q5_K", "Q6_K"), "Q6_K": ("Q6_K",), "Q4_0": ("Q4_0", "Q6_K"), "Q4_1": ("Q4_1", "Q6_K"),
    "Q5_0": ("Q5_0", "Q6_K"), "Q5_1": ("Q5_1", "Q6_K"), "Q8_K": ("Q8_0", "F16"), "IQ1_S": ("IQ1_S", "IQ2_XXS"),
    "IQ1_M": ("IQ1_M", "IQ2_XXS"), "IQ2_M": ("IQ2_S", "IQ3_S"), "IQ3_XXS": ("IQ3_XXS",), "IQ3_XS": ("IQ3_XXS", "IQ3_S"),
    "IQ3_M": ("IQ3_S", "Q4_K"), "IQ4_XS": ("IQ4_XS", "Q5_K", "Q6_K"), "IQ4_NL": ("IQ4_NL", "Q5_K", "Q6_K"),
    "MXFP4": ("MXFP4", "Q8_0"), "MXFP4_MOE": ("MXFP4", "Q8_0"),
}  # fmt: skip


def quant_of(file: str) -> str | None:
    """Read the quant from a file's name such as "q4/model.i1-IQ2_XXS-00001-of-00002.gguf"; None if it has none."""
    found = _NAME.findall(re.sub(r"\.gguf$", "", file, flags=re.IGNORECASE))
    return found[-1].upper().replace("UD_", "UD-") if found else None


def known_quant(text: str) -> str | None:
    """Return the quant of this name in capitals, or None where it is the name of none.

    `i1-` before it only says that an importance matrix was used.
    """
    name = text.strip().upper().removeprefix("I1-")
    return name if _WHOLE.fullmatch(name) else None


def plain(quant: str) -> str:
    """Return the quant without Unsloth's prefix."""
    return quant.upper().removeprefix("UD-")


def nominal_bits(quant: str) -> int:
    """Return the bits per weight in a quant's name: 3 for IQ3_XXS, 4 for MXFP4, 16 for BF16; 0 if it has none."""
    name = plain(quant)
    if name.endswith("FP4") or name.startswith("MXFP4"):
        return 4
    found = re.search(r"\d+", name)
    return int(found[0]) if found else 0


def tensor_types(quant: str) -> tuple[str, ...]:
    """Return the GGUF tensor types that a file of this quant contains beside F32, as far as the name tells."""
    name = plain(quant)
    root = re.sub(r"_(S|M|L|XL|XXL)$", "", name)
    return _TYPES.get(name) or _TYPES.get(root) or (root if name.startswith("Q") else name,)
