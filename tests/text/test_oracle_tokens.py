"""Ids beside those of llama.cpp itself (the wheel cyllama): of SmolLM2, of vocabularies that llama.cpp tests itself
with, and of the models in the folder SEVENTY_TEST_MODELS."""

import os
import random
import unicodedata
from pathlib import Path

import pytest

from seventy.gguf.file import GGUF
from seventy.text.tokenizer import Tokenizer
from tests.support import reference_files

RANGES = [
    (0x20, 0x7E), (9, 13), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x4FF), (0x590, 0x6FF), (0x900, 0xE7F),
    (0x1100, 0x11FF), (0x1E00, 0x20CF), (0x2190, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xFF00, 0xFFEF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF),
]  # fmt: skip
WORDS = [
    "the", "Hello", " world", "'s", "'LL", " don't", "123", "4567890", "  ", "    ", "\n", "\n\n", "\r\n", "\t", " \n",
    "你好", "世界", "，", "def f(x):", "!=", "...", "http://", "É", "ß", "🙂", "👨‍👩‍👧", "\u00a0", "\u3000", "ſ",
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<0x0A>", "▁", "Ġ",
]  # fmt: skip


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


def some_text(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.choice([3, 10, 40])):
        if rng.random() < 0.5:
            parts.append(rng.choice(WORDS) * rng.choice([1, 1, 1, rng.randint(2, 9)]))
        else:
            first, last = rng.choice(RANGES)
            parts.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 5))))
    # What is a letter in the newest Unicode is not yet one in every library's tables.
    return "".join(char for char in "".join(parts) if unicodedata.category(char) != "Cn")


@pytest.mark.parametrize("name", MODELS, ids=str)
def test_ids_are_those_of_llama_cpp(name: str | Path, path: Path) -> None:
    from cyllama.llama import llama_cpp as llama

    class Model(llama.LlamaModel):
        n_vocab = property(lambda self: 0)  # cyllama 0.2.18 asks for it and does not have it

    loaded = Model(str(path), llama.LlamaModelParams())
    theirs = loaded.get_vocab()
    with GGUF(path) as model:
        tokenizer = Tokenizer.from_metadata(model.metadata)
    assert {token for token in range(tokenizer.vocab_size) if theirs.is_eog(token)} == tokenizer.end_ids
    assert theirs.get_add_bos() == tokenizer.add_bos
    rng = random.Random(70)
    for _ in range(500):
        text = some_text(rng).replace(UNLIKE.get(str(name), "\0"), "")
        for special in (False, True):
            assert tokenizer.encode(text, special) == theirs.tokenize(text, False, special), text
