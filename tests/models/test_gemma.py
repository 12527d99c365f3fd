"""Gemma: norms on both sides of a block, windows with a rotary base of their own, GELU, against float passes."""

import importlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from seventy import SeventyError
from seventy.cache.spec import Paged
from seventy.gguf.file import GGUF
from seventy.models import gemma3, gemma4
from tests.support.families.judge import assert_as_near_as_llama_cpp, assert_exact

FAMILIES = {name: importlib.import_module(f"tests.support.families.{name}") for name in ("gemma3", "gemma4")}
CORNERS = {
    **{(name, case): corners for name, family in FAMILIES.items() for case, corners in family.CASES.items()},
    **{(name, case): twin for name, family in FAMILIES.items() for case, (twin, _) in family.TWINS.items()},
}
# Their layers share keys and values.
del CORNERS["gemma4", "E2B"]
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


def test_shared_keys_and_values_are_refused_with_words(tmp_path: Path) -> None:
    path = FAMILIES["gemma4"].write(tmp_path / "model.gguf", **FAMILIES["gemma4"].CASES["E2B"])
    with GGUF(path) as file, pytest.raises(SeventyError, match="which this engine does not do yet; take Gemma 4 12B"):
        gemma4.config(file.metadata)


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
