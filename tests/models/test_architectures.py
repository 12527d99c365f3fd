"""Small random models of every architecture and kind of positions, against numpy and against llama.cpp."""

import re
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.formats import formats
from seventy.gguf.file import GGUF
from seventy.jit.isa import supported
from seventy.models import architectures, llama
from tests.models import test_convolutions, test_gemma, test_hybrids, test_latent_attention, test_mixtures, test_phi
from tests.support.oracle import (
    assert_as_near_to_the_exact_model,
    divergence,
    float32_logits,
    llama_cpp_logits,
    references,
)
from tests.support.tiny import CONTEXT, EXPERTS, write_tiny

IDS = [(17 * i * i + 3 * i) % 259 for i in range(150)]
FACTORS = np.linspace(1, 8, 32).astype(np.float32)
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
LONGROPE = {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": 1.1}
SHORT_AND_LONG = {"rope_factors_short.weight": FACTORS[:] / 2 + 0.5, "rope_factors_long.weight": FACTORS}
CASES = {
    "llama": ("llama", {}, {}),
    "qwen2": ("qwen2", {}, {}),
    "qwen3": ("qwen3", {}, {}),
    "qwen3moe": ("qwen3moe", {"expert_used_count": 4}, {}),
    "qwen3moe, one expert a row": ("qwen3moe", {"expert_used_count": 1}, {}),
    "linear": ("llama", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {}),
    "linear by default": ("qwen2", {"rope.scaling.factor": 2.0}, {}),
    "none whatever the factor": ("llama", {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, {}),
    "yarn": ("qwen2", YARN, {}),
    "yarn interleaved": ("llama", {**YARN, "rope.scaling.attn_factor": 0.9}, {}),
    "Llama 3": ("llama", {}, {"rope_freqs.weight": FACTORS}),
    "longrope, short": ("llama", {**LONGROPE, "rope.scaling.original_context_length": 1024}, SHORT_AND_LONG),
    "longrope, long": ("llama", {**LONGROPE, "rope.scaling.original_context_length": 64}, SHORT_AND_LONG),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_numpy_and_of_llama_cpp(case: str, tmp_path: Path) -> None:
    architecture, metadata, vectors = CASES[case]
    path = write_tiny(tmp_path / "model.gguf", architecture, "F32", vectors=vectors, **metadata)
    with LLM(path, threads=2, context=512) as llm:
        ours = llm.logits(IDS)
    gaps: list[float] = []
    plain = float32_logits(path, IDS, gaps)
    # A router that hardly decides may decide otherwise, and then nothing follows from the logits.
    assert min(gaps, default=1.0) > 1e-3
    kl, top1 = divergence(plain, ours)
    # F32 weights leave the half-precision cache as the only difference.
    assert kl < 1e-6 and top1 > 0.99
    kl, top1 = divergence(llama_cpp_logits(path, IDS, flash=False), ours)
    assert kl < 1e-6 and top1 > 0.99


def test_every_architecture_is_among_the_cases() -> None:
    families = (test_mixtures, test_latent_attention, test_gemma, test_hybrids, test_convolutions, test_phi)
    others = {name for module in families for name in module.FAMILIES}
    names = {architecture for architecture, _, _ in CASES.values()} | {name.replace("_", "-") for name in others}
    # One that runs beside others only: tests/models/test_gemma4_assistant.py.
    assert names == set(architectures()) - {"gemma4-assistant"}


FORMATS = [format.name for format in formats().values()]
OF_EACH_KIND = {format.activation: format.name for format in formats().values()}.values()


@pytest.mark.parametrize(
    ("architecture", "format"),
    [
        *(("llama", format) for format in FORMATS),
        # Experts are multiplied as other matrices are, and dense architectures differ in no product.
        *((architecture, format) for architecture in ("qwen2", "qwen3", "qwen3moe") for format in OF_EACH_KIND),
    ],
)
def test_every_format_is_as_right_as_llama_cpp_on_every_level(architecture: str, format: str, tmp_path: Path) -> None:
    # Every expert: what a router hardly decides, rounded weights decide otherwise.
    all_experts = {"expert_used_count": EXPERTS} if architecture == "qwen3moe" else {}
    path = write_tiny(tmp_path / "model.gguf", architecture, format, tied=False, **all_experts)
    reference = references(path, [IDS])
    for isa in supported():
        with LLM(path, threads=2, context=512, isa=isa.name) as llm:
            assert_as_near_to_the_exact_model(reference, llm.logits(IDS))


@pytest.mark.parametrize("format", [format for format in FORMATS if format not in OF_EACH_KIND])
def test_experts_of_every_format(format: str, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", "qwen3moe", format, tied=False, expert_used_count=EXPERTS)
    with LLM(path, threads=2, context=512) as llm:
        assert_as_near_to_the_exact_model(references(path, [IDS]), llm.logits(IDS))


# As the files of these names mix them.
MIXTURES = {
    "IQ2_M": ("IQ2_S", {"token_embd": "IQ3_S", "output": "Q5_K", "attn_v": "Q4_K", "attn_output": "IQ3_S"}),
    "IQ3_XXS": ("IQ3_XXS", {"token_embd": "IQ3_S", "attn_q": "IQ2_S", "attn_k": "IQ2_S", "attn_output": "IQ3_S"}),
    "UD-Q2_K_XL": ("Q2_K", {"token_embd": "Q4_K", "output": "Q6_K", "ffn_down": "IQ3_S", "ffn_up": "IQ2_XXS"}),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_of_types(name: str, tmp_path: Path) -> None:
    base, types = MIXTURES[name]
    path = write_tiny(tmp_path / "model.gguf", "llama", base, tied=False, types=types)
    with LLM(path, threads=2, context=512) as llm:
        assert_as_near_to_the_exact_model(references(path, [IDS]), llm.logits(IDS))


@pytest.mark.parametrize("down", ["Q4_0", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"])
def test_a_width_that_no_k_quant_divides(down: str, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", "qwen2", "Q4_K", tied=False, down=down)
    with LLM(path, threads=2, context=512) as llm:
        assert_as_near_to_the_exact_model(references(path, [IDS]), llm.logits(IDS))


@pytest.mark.parametrize(
    ("architecture", "metadata", "sentence"),
    [
        ("llama", {"rope.scaling.type": "su"}, "positions by 'su', which this engine does not know; take a model"),
        ("qwen3", {"expert_count": 8}, "has a mixture of experts .expert_count = 8., which this engine does not"),
        ("llama", {"logit_scale": 0.5}, "has scaled logits"),
        ("qwen3", {"attention.value_length": 64}, "values of 64; the engine needs"),
        ("llama", {"attention.head_count_kv": 3}, "4 heads of 64 and 3 of keys and values"),
        ("llama", {"attention.head_count": 0}, "head_count is 0, not a number from 1 to 4096; get the file again"),
        ("llama", {"attention.head_count": 4096, "attention.key_length": 1024}, "4096 heads of 1024"),
        ("llama", {"attention.head_count": 4_000_000_000}, "head_count is 4000000000, not a number from 1 to 4096"),
        ("llama", {"block_count": 4_000_000_000}, "block_count is 4000000000, not a number"),
        ("llama", {"block_count": 3}, "has no tensor blk.2.attn_norm.weight, which its architecture needs"),
        ("llama", {"block_count": 1}, "has no use for: blk.1.attn_norm.weight, .* and 6 more"),
        ("llama", {"context_length": 0}, "context_length is 0, not a number"),
        ("llama", {"embedding_length": 512}, r"shape \[259, 256\], its metadata says \[259, 512\]"),
        ("llama", {"feed_forward_length": 256}, r"shape \[512, 256\], its metadata says \[256, 256\]"),
        ("llama", {"rope.freq_base": 0.0}, "rope.freq_base is 0.0, not a positive number"),
        ("llama", {"rope.freq_base": float("nan")}, "rope.freq_base is nan, not a positive number"),
        ("llama", {"rope.dimension_count": 63}, "turns 63 dimensions"),
        ("llama", {"attention.layer_norm_rms_epsilon": "small"}, "rms_epsilon is 'small', not a positive number"),
        ("falcon", {}, "does not know the architecture 'falcon'; take .*: deepseek2, .*glm-dsa, .*qwen2"),
    ],
)  # fmt: skip
def test_what_the_engine_does_not_do_is_refused_with_words(
    architecture: str, metadata: dict, sentence: str, tmp_path: Path
) -> None:
    path = write_tiny(tmp_path / "model.gguf", architecture, **metadata)
    with pytest.raises(SeventyError, match=sentence):
        LLM(path, threads=1)


@pytest.mark.parametrize("wrong", ["x", 3, -1, 1.5, float("nan"), True, (1 << 64) - 1, [1, 2], ["a"], []], ids=repr)
def test_metadata_of_another_kind_is_one_sentence_or_a_config(wrong: object, tmp_path: Path) -> None:
    with GGUF(write_tiny(tmp_path / "model.gguf")) as gguf:
        metadata = gguf.metadata
    for key in metadata:
        try:
            config = llama.config({**metadata, key: wrong})
        except SeventyError as error:
            assert "\n" not in str(error) and re.search("; (get|take)|: (get|take)", str(error)), f"{key}: {error}"
        else:
            assert config.hidden % config.heads == 0
            assert config.vocabulary == 259 or key == "tokenizer.ggml.tokens"


@pytest.mark.parametrize(("window", "context"), [(1024, 1024), (2 * CONTEXT, CONTEXT), (0, CONTEXT)])
def test_no_context_is_longer_than_the_sliding_window(window: int, context: int, tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "model.gguf", "llama", **{"attention.sliding_window": window})
    with LLM(path, threads=1, context=4 * CONTEXT) as llm:
        assert llm.context == context
