"""Models of short convolutions, in every corner that files have, against float forward passes."""

from pathlib import Path

import pytest

from seventy import SeventyError
from seventy.cache.spec import Paged, Recurrent
from seventy.engine.footprint import footprint
from seventy.engine.model import Model
from seventy.gguf.file import GGUF
from seventy.models import lfm2
from tests.support.families.judge import assert_as_near_as_llama_cpp, assert_exact, corners, families

FAMILIES = families("lfm2", "lfm2moe")
CORNERS = corners(FAMILIES)


@pytest.mark.parametrize(("name", "case"), CORNERS)
def test_logits_are_those_of_floats(name: str, case: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    assert_exact(family, family.write(tmp_path / f"{name} {case}.gguf", seed=1, **CORNERS[name, case]))


@pytest.mark.parametrize("name", FAMILIES)
def test_quantised_files_are_as_right_as_llama_cpp(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    # With one layer of experts, whose router decides clearly for most rows.
    corners = {"kv_heads": [0, 2, 0]} if name == "lfm2moe" else {}
    assert_as_near_as_llama_cpp(family, family.write(tmp_path / f"{name}.gguf", seed=1, format="Q8_0", **corners))


def test_layers_remember_as_much_as_their_kind_does(tmp_path: Path) -> None:
    with GGUF(FAMILIES["lfm2"].write(tmp_path / "model.gguf", **FAMILIES["lfm2"].CASES["window"])) as file:
        config = lfm2.config(file.metadata)
        specs, sizes = lfm2.caches(config), footprint(file, config, lfm2.caches(config))
    # A window of 3 rows, and room for 7 drafted ones.
    convolution = Recurrent(((3 + 7, 256),), 4 * 7 * 256)
    assert specs == [convolution, Paged(4, 64, 64, 7), convolution, Paged(1, 64, 64, 7), Paged(2, 64, 64, 7)]
    assert sizes.state_bytes == 2 * convolution.nbytes


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"shortconv.l_cache": 1}, "shortconv.l_cache is 1, not a number from 2 to 16; get the file again"),
        ({"attention.head_count_kv": [0, 0, 3, 0, 2]}, "4 heads of 64 and 3 of keys and values"),
        ({"attention.head_count_kv": [0, 0]}, "head_count_kv is .0, 0., not a number for each of its 5 layers"),
        ({"attention.head_count_kv": [0, 2, 2, 0, 2]}, "has no tensor blk.1.attn_q.weight"),
        ({"shortconv.l_cache": 4}, r"shortconv.conv.weight has shape .256, 3., its metadata says .256, 4."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_words(metadata: dict, sentence: str, tmp_path: Path) -> None:
    path = FAMILIES["lfm2"].write(tmp_path / "model.gguf")
    with GGUF(path) as file, pytest.raises(SeventyError, match=sentence):
        file.metadata = {**file.metadata, **{f"lfm2.{key}": value for key, value in metadata.items()}}
        Model(file, threads=1)
