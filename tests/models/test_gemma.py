"""Gemma: norms on both sides of a block, windows with a rotary base of their own, GELU, against float passes."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM, SeventyError
from seventy.cache.pages import Pages
from seventy.cache.spec import Paged, Shared
from seventy.engine.footprint import footprint
from seventy.engine.model import Model
from seventy.gguf.file import GGUF
from seventy.graph.weights import packed_bytes
from seventy.models import gemma3, gemma4
from tests.support.families.judge import IDS, assert_as_near_as_llama_cpp, assert_exact, corners, families

FAMILIES = families("gemma3", "gemma4")
CORNERS = corners(FAMILIES)
CORNERS["gemma4", "E4B"] = {
    "pattern": [True, False, True, False, True], "kv_heads": 2, "shared_kv": 3, "per_layer": 48, "layer_scales": True,
    "window": 7, "fused_qkv": True,
}  # fmt: skip
# Of 62 layers, what a half-precision cache loses adds up.
MOST = {"27B": 0.05}


@pytest.mark.parametrize(("name", "case"), CORNERS)
def test_logits_are_those_of_floats(name: str, case: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    path = family.write(tmp_path / f"{name} {case}.gguf", seed=1, **CORNERS[name, case])
    assert_exact(family, path, MOST.get(case, 0.015))


@pytest.mark.parametrize("name", FAMILIES)
def test_quantised_files_are_as_right_as_llama_cpp(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    corners = family.MOE if name == "gemma4" else {}
    assert_as_near_as_llama_cpp(family, family.write(tmp_path / f"{name}.gguf", seed=1, format="Q8_0", **corners))


def test_layers_remember_as_much_as_their_kind_does(tmp_path: Path) -> None:
    with GGUF(FAMILIES["gemma4"].write(tmp_path / "model.gguf", **FAMILIES["gemma4"].MOE)) as file:
        config = gemma4.config(file.metadata)
    windowed, full = Paged(2, 64, 64, window=48), Paged(1, 128, 128)
    assert gemma4.caches(config) == [windowed, windowed, full, windowed, full]


@pytest.fixture(scope="module")
def e2b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose last layers share what others remember, and with embeddings of each layer."""
    folder = tmp_path_factory.mktemp("models")
    return FAMILIES["gemma4"].write(folder / "e2b.gguf", format="Q8_0", **FAMILIES["gemma4"].CASES["E2B"])


def test_layers_that_share_remember_nothing_and_read_twice(e2b: Path) -> None:
    windowed, full = Paged(1, 64, 64, window=48), Paged(1, 128, 128)
    with GGUF(e2b) as file:
        config = gemma4.config(file.metadata)
        specs = gemma4.caches(config)
        sizes = footprint(file, config, specs)
    assert specs == [windowed, windowed, windowed, full, Shared(2), Shared(3)]
    one, other = windowed.position_bytes("f16"), full.position_bytes("f16")
    assert (sizes.position_bytes, sizes.window_bytes) == (other, 3 * one)
    assert sizes.seen_bytes(100) == 2 * other * 100 + 4 * one * 48
    assert Pages(specs, 4, "f16").seen_bytes(99, 100) == sizes.seen_bytes(100)


def test_embeddings_of_layers_stay_in_the_file(e2b: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(e2b, tmp_path))
    with GGUF(path) as file:
        table = file.tensors["per_layer_token_embd.weight"]
        config = gemma4.config(file.metadata)
        sizes = footprint(file, config, gemma4.caches(config))
        without = sum(packed_bytes(info) for info in file.tensors.values() if info is not table)
    assert sizes.weights == without
    with LLM(path, threads=2, context=256) as llm:
        assert len(llm.model.program.weights.memory) <= without
        before = llm.logits(IDS[:20])
        # What is open stays, whatever becomes of its name; a file that was cut is an answer, not a crash.
        other = path.rename(tmp_path / "other.gguf")
        assert np.array_equal(llm.logits(IDS[:20]), before)
        os.truncate(other, table.offset)
        with pytest.raises(SeventyError, match="became shorter while it was read"):
            llm.logits(IDS[20:40])


def test_keys_that_no_layer_would_make_are_left_in_the_file(tmp_path: Path) -> None:
    # As in the files of E2B and E4B, whose last layers have them and do not use them.
    family = FAMILIES["gemma4"]
    corners = family.CASES["E2B"] | {"shared_kv": 0}
    path = family.write(tmp_path / "own.gguf", **corners)
    with GGUF(path) as file:
        file.metadata = {**file.metadata, "gemma4.attention.shared_kv_layers": 2}
        with Model(file, threads=1) as model:
            assert not any(".attn_k" in matrix.name for matrix in model.matrices if matrix.name > "blk.4")


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"attention.shared_kv_layers": 6}, "shared_kv_layers is 6, not a number from 0 to 5; get the file again"),
        ({"attention.shared_kv_layers": 3}, "none of those has a window, or none has none, as they do; that cannot"),
        ({"embedding_length_per_layer_input": 40}, r"shape .259, 192., its metadata says .259, 240."),
        ({"feed_forward_length": [320] * 5}, "not a number for each of its 6 layers; get the file again"),
    ],
)  # fmt: skip
def test_sharing_that_cannot_be_is_refused_with_words(
    metadata: Mapping[str, object], sentence: str, e2b: Path
) -> None:
    with GGUF(e2b) as file, pytest.raises(SeventyError, match=sentence):
        file.metadata = {**file.metadata, **{f"gemma4.{key}": value for key, value in metadata.items()}}
        Model(file, threads=1)


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"rope.freq_base_swa": 0.5}, "turns 96 dimensions by base 0.5; that cannot be: get the file again"),
        ({"attention.value_length_swa": 64}, "2 of keys and values, values of 64; the engine needs whole groups"),
        ({"attn_logit_softcapping": 50.0}, "has capped attention scores .attn_logit_softcapping = 50.0., which this"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_words(metadata: Mapping[str, object], sentence: str, tmp_path: Path) -> None:
    with GGUF(FAMILIES["gemma3"].write(tmp_path / "model.gguf")) as file, pytest.raises(SeventyError, match=sentence):
        gemma3.config({**file.metadata, **{f"gemma3.{key}": value for key, value in metadata.items()}})
