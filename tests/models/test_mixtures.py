"""Mixtures of experts with ordinary attention, in every corner that files have, against float forward passes."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from seventy import LLM, SeventyError
from seventy.engine.footprint import footprint
from seventy.engine.model import Model
from seventy.gguf.file import GGUF
from tests.support.families.judge import assert_as_near_as_llama_cpp, assert_exact, corners, families

FAMILIES = families("qwen3moe", "qwen2moe", "glm4moe", "minimax_m2", "llama", "gpt_oss", "mistral3")
CORNERS = {
    **corners(FAMILIES, twins=False),
    ("qwen3moe", "expert arrays"): {"expert_arrays": True},
    ("minimax_m2", "fused"): {"fused_qkv": True},
    ("mistral3", "fused"): {"fused_qkv": True},
    ("gpt_oss", "scales"): {"scales": True},
    # llama.cpp at the tests' version reads no such file of this architecture.
    ("glm4moe", "fused gate and up"): {"fused_gate_up": True, "nextn": 2},
}


@pytest.mark.parametrize(("name", "case"), CORNERS)
def test_logits_are_those_of_floats(name: str, case: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_exact(family, family.write(tmp_path / f"{name} {case}.gguf", seed=1, **CORNERS[name, case]))


@pytest.mark.parametrize("name", ["qwen2moe", "glm4moe", "minimax_m2", "llama", "mistral3"])
def test_quantised_files_are_as_right_as_llama_cpp(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_as_near_as_llama_cpp(family, family.write(tmp_path / f"{name}.gguf", seed=1, format="Q8_0"))


def test_blocks_that_nobody_drafts_with_take_no_memory(tmp_path: Path) -> None:
    write = FAMILIES["glm4moe"].write
    needs = []
    for further in (0, 2):
        path = write(tmp_path / f"{further}.gguf", format="Q8_0", nextn=further)
        with LLM(path, threads=1, context=64, draft="off") as llm, GGUF(path) as file:
            config, specs = llm.model.config, llm.model.cache.memory.specs
            assert config.layers == len(specs) == 3
            needs.append(footprint(file, config, specs).weights)
            assert len(llm.model.program.weights.memory) <= needs[-1]
    assert needs[0] == needs[1]


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"expert_gating_func": 4}, "by function 4 .expert_gating_func., which this engine does not know; take"),
        ({"expert_group_count": 3}, "chooses 2 of 8 experts in 1 of 3 groups; that cannot be: get the file again"),
        ({"expert_group_count": 8}, "in 1 of 8 groups; that cannot be"),
        ({"expert_group_count": 4, "expert_group_used_count": 0}, "in 0 of 4 groups; that cannot be"),
        ({"expert_weights_norm": 3}, "expert_weights_norm is 3, not true or false; get the file again"),
        ({"expert_used_count": 9}, "expert_used_count is 9, not a number from 1 to 8"),
        ({"nextn_predict_layers": 3}, "nextn_predict_layers is 3, not a number from 0 to 2"),
        ({"leading_dense_block_count": 4}, "leading_dense_block_count is 4, not a number from 0 to 3"),
        ({"attention.head_count": [6, 6, 3]}, "head_count is not the same in all layers, which this engine does not"),
        ({"expert_shared_count": 2}, r"ffn_gate_shexp.weight has shape .160, 256., its metadata says .320, 256."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_words(metadata: Mapping[str, object], sentence: str, tmp_path: Path) -> None:
    path = FAMILIES["glm4moe"].write(tmp_path / "model.gguf")
    with GGUF(path) as file, pytest.raises(SeventyError, match=sentence):
        file.metadata = {**file.metadata, **{f"glm4moe.{key}": value for key, value in metadata.items()}}
        Model(file, threads=1)


def test_a_fused_tensor_that_panels_do_not_divide_is_refused(tmp_path: Path) -> None:
    path = FAMILIES["glm4moe"].write(tmp_path / "model.gguf", width=40, fused_gate_up=True)
    with pytest.raises(SeventyError, match="holds matrices of 40, 40 rows; the engine needs multiples of 16: take"):
        LLM(path, threads=1)
