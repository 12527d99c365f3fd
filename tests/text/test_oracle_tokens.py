"""Ids beside those of llama.cpp itself (the wheel cyllama), on whole models."""

import os
from pathlib import Path

import pytest

from seventy.gguf.file import GGUF
from seventy.hub import store
from seventy.text.tokenizer import Tokenizer
from tests.support.texts import texts
from tests.support.vocabularies import LlamaCpp


def files() -> list[Path]:
    """Those in the folder SEVENTY_TEST_MODELS, and what `seventy pull` has brought."""
    folder = os.environ.get("SEVENTY_TEST_MODELS")
    return [*(sorted(Path(folder).glob("*.gguf")) if folder else []), *store.present()]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_ids_are_those_of_llama_cpp(path: Path) -> None:
    theirs = LlamaCpp(path)
    with GGUF(path) as model:
        tokenizer = Tokenizer.from_metadata(model.metadata)
    assert theirs.ends(range(tokenizer.vocab_size)) == tokenizer.end_ids
    assert theirs.add_bos == tokenizer.add_bos
    for text in texts(500):
        for special in (False, True):
            assert tokenizer.encode(text, special) == theirs.encode(text, special), text
