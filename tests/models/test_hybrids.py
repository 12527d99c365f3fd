"""Models of gated delta-nets, in every corner that files have, against float forward passes."""

from pathlib import Path

import pytest

from seventy import LLM, SeventyError
from seventy.engine.model import Model
from seventy.gguf.file import GGUF
from tests.support.families import qwen35
from tests.support.families.judge import assert_as_near_as_llama_cpp, assert_exact, corners, families

FAMILIES = families("qwen35", "qwen35moe", "qwen3next")
CORNERS = corners(FAMILIES)


@pytest.mark.parametrize(("name", "case"), CORNERS)
def test_logits_are_those_of_floats(name: str, case: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_exact(family, family.write(tmp_path / f"{name} {case}.gguf", seed=1, **CORNERS[name, case]))


@pytest.mark.parametrize("name", FAMILIES)
def test_quantised_files_are_as_right_as_llama_cpp(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_as_near_as_llama_cpp(family, family.write(tmp_path / f"{name}.gguf", seed=1, format="Q8_0"))


def test_states_are_in_the_account_and_in_what_steps_read(tmp_path: Path) -> None:
    path = qwen35.write(tmp_path / "model.gguf", layers=3, interval=3, state=32, k_heads=2, v_heads=4)
    with LLM(path, threads=1, context=64) as llm:
        model = llm.model
        # Two layers: a window of 3 rows of 256 channels, and 4 matrices of 32 x 32; and 7 drafted rows.
        kept, drafted = 3 * 256 + 4 * 32 * 32, 256 + 4 * (2 * 32 + 16)
        assert model.cache.states.nbytes == 2 * 4 * (kept + 7 * drafted)
        assert model.cache.states.kept_bytes == 2 * 4 * kept
        nothing = model.program.bytes_of_one_row() + 2 * model.cache.states.kept_bytes
        assert model.read_bytes(1) == nothing + model.cache.memory.position_bytes


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"ssm.inner_size": 128}, "2 key heads and 4 value heads of 64, 128 columns in all; the engine needs whole"),
        ({"ssm.group_count": 3}, "3 key heads and 4 value heads of 64"),
        ({"ssm.conv_kernel": 1}, "ssm.conv_kernel is 1, not a number from 2 to 16; get the file again"),
        ({"full_attention_interval": 0}, "full_attention_interval is 0, not a number"),
        ({"attention.recurrent_layers": [True, False]}, r"recurrent_layers is \[True, False\], not true or false for"),
        ({"attention.recurrent_layers": [False] * 5}, r"shape .512, 256., its metadata says .768, 256."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_words(metadata: dict, sentence: str, tmp_path: Path) -> None:
    path = qwen35.write(tmp_path / "model.gguf")
    with GGUF(path) as file, pytest.raises(SeventyError, match=sentence):
        file.metadata = {**file.metadata, **{f"qwen35.{key}": value for key, value in metadata.items()}}
        Model(file, threads=1)
