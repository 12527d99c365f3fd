"""Ids beside those of llama.cpp itself (the wheel cyllama): of SmolLM2, of vocabularies that llama.cpp tests itself
with, and of the models in the folder SEVENTY_TEST_MODELS."""

import os
from pathlib import Path

import pytest

from seventy.gguf.file import GGUF
from seventy.text.tokenizer import Tokenizer
from tests.support import reference_files
from tests.support.texts import texts
from tests.support.vocabularies import LlamaCpp

# Where llama.cpp differs from the library that these models' makers use: that one drops a byte without a token and
# merges its neighbours; and to llama.cpp's rules an ideographic space is a space but not itself.
UNLIKE = {"falcon": "\x0b", "deepseek-llm": "\u3000"}
FOLDER = os.environ.get("SEVENTY_TEST_MODELS")
MODELS = ["smollm2", *reference_files.VOCABULARIES, *(sorted(Path(FOLDER).glob("*.gguf")) if FOLDER else [])]


@pytest.fixture
def path(name: str | Path, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if isinstance(name, Path):
        return name
    if name == "smollm2":
        return request.getfixturevalue("smollm2")
    return reference_files.model_of(name, tmp_path / "model.gguf")


@pytest.mark.parametrize("name", MODELS, ids=str)
def test_ids_are_those_of_llama_cpp(name: str | Path, path: Path) -> None:
    theirs = LlamaCpp(path)
    with GGUF(path) as model:
        tokenizer = Tokenizer.from_metadata(model.metadata)
    assert theirs.ends(range(tokenizer.vocab_size)) == tokenizer.end_ids
    assert theirs.add_bos == tokenizer.add_bos
    for text in texts(500):
        text = text.replace(UNLIKE.get(str(name), "\0"), "")
        for special in (False, True):
            assert tokenizer.encode(text, special) == theirs.encode(text, special), text
