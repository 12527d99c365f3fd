"""Whole files of 1 to 3 bits, mixed as published ones are, dense and of experts; and NVFP4 with its second scales."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.jit.isa import supported
from tests.support.families import glm4moe, qwen3moe
from tests.support.families.judge import (
    IDS,
    assert_as_near_as_llama_cpp,
    assert_exact,
    engine_logits,
    log_probabilities,
)
from tests.support.oracle import llama_cpp_logits

# By llama.cpp's rules (seventy/bench/quants.py), and one in the manner of Unsloth's.
MIXTURES: dict[str, Mapping[str, str]] = {
    "IQ1_M": {"token_embd": "Q2_K", "output.w": "Q5_K", "attn_v": "Q4_K", "attn_output": "IQ2_XXS",
              "blk.0.ffn_down": "Q2_K", "blk.1.ffn": "IQ1_S", "": "IQ1_M"},
    "IQ2_M": {"token_embd": "IQ3_S", "output.w": "Q5_K", "attn_v": "Q4_K", "attn_output": "IQ3_S",
              "blk.0.ffn_down": "IQ3_S", "": "IQ2_S"},
    "UD-Q2_K_XL": {"token_embd": "Q4_K", "output.w": "Q6_K", "attn": "Q5_K", "blk.2.ffn_gate": "TQ2_0",
                   "blk.2.ffn_up": "TQ1_0", "ffn_down": "IQ3_XXS", "blk.1.ffn_up": "IQ2_XS", "": "IQ2_XXS"},
}  # fmt: skip


def write(path: Path, types: Mapping[str, str] | str, **corners: bool) -> Path:
    """Experts all of whom every row goes to: what a router hardly decides, rounded inputs would decide otherwise."""
    return qwen3moe.write(path, seed=1, format=types, width=256, used=qwen3moe.EXPERTS, **corners)


def divergence(exact: np.ndarray, found: np.ndarray) -> float:
    exact, found = log_probabilities(exact), log_probabilities(found)
    return float((np.exp(exact) * (exact - found)).sum(-1).mean())


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_of_few_bits_are_as_right_as_llama_cpp(name: str, tmp_path: Path) -> None:
    assert_as_near_as_llama_cpp(qwen3moe, write(tmp_path / f"{name}.gguf", MIXTURES[name]))


# One of each way to multiply and look up; the kernels themselves are judged at all levels.
@pytest.mark.parametrize("name", [isa.name for isa in supported() if isa.name in ("generic", "avx2", "avx512")])
def test_few_bits_at_every_way(name: str, tmp_path: Path) -> None:
    # Of experts one type, for the kernels of each are compiled anew.
    types = {"ffn": "IQ3_S", **MIXTURES["IQ2_M"]}
    path, ids = write(tmp_path / "model.gguf", types), IDS[:40]
    exact, _ = qwen3moe.forward(path, ids)
    theirs = max(divergence(exact, llama_cpp_logits(path, ids, flash)) for flash in (True, False))
    with LLM(path, threads=2, context=512, isa=name) as llm:
        assert divergence(exact, llm.logits(ids)) <= 1.25 * theirs


def test_nvfp4_with_the_scales_of_matrices_and_of_experts(tmp_path: Path) -> None:
    path = write(tmp_path / "nvfp4.gguf", {"token_embd": "Q8_0", "": "NVFP4"}, scales=True)
    exact, _ = qwen3moe.forward(path, IDS)
    theirs = max(divergence(exact, llama_cpp_logits(path, IDS, flash)) for flash in (True, False))
    ours = divergence(exact, engine_logits(path))
    print(f"NVFP4: KL {ours:.1e}, of llama.cpp {theirs:.1e}")
    assert ours <= 1.25 * theirs


def test_scales_count_where_llama_cpp_forgets_them(tmp_path: Path) -> None:
    assert_exact(glm4moe, glm4moe.write(tmp_path / "scales.gguf", seed=1, scales=True))


@pytest.mark.parametrize("type_id", [41, 42])
def test_types_that_the_engine_cannot_multiply_are_named(type_id: int, tmp_path: Path) -> None:
    # Q1_0 is 41 in ik_llama.cpp, too.
    path = write(tmp_path / "model.gguf", "Q8_0")
    data = path.read_bytes()
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8
    assert data[at : at + 4] == (8).to_bytes(4, "little")
    path.write_bytes(data[:at] + type_id.to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(SeventyError, match=r"has type Q[12]_0, which this engine cannot multiply; take a file"):
        LLM(path, threads=1)
