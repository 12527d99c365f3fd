"""Token by token what llama.cpp expects of itself."""

import subprocess
import sys

import pytest

from seventy.gguf.file import GGUF
from seventy.text.tokenizer import StreamDecoder, Tokenizer
from tests.support import reference_files

SEPARATOR = "\n__ggml_vocab_test__\n"


@pytest.mark.parametrize("name", [*reference_files.VOCABULARIES, "gemma-4"])
def test_ids_and_back(name: str) -> None:
    folder = reference_files.folder()
    with GGUF(reference_files.vocabulary(name)) as model:
        tokenizer = Tokenizer.from_metadata(model.metadata)
    texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode().split(SEPARATOR)
    lines = (folder / f"ggml-vocab-{name}.gguf.out").read_text().splitlines()
    # In most files one text more than answers: what follows the last separator is nothing.
    assert len(texts) - 1 <= len(lines) <= len(texts) and len(lines) >= 46
    for text, line in zip(texts, lines, strict=False):
        ids = tokenizer.encode(text)
        assert ids == [int(number) for number in line.split()], text
        assert tokenizer.decode(ids) == text
        stream = StreamDecoder(tokenizer)
        streamed = "".join(stream.push(token) for token in ids) + stream.flush()
        assert streamed in (text, " " + text)


ENDS = {
    "llama-bpe": {"<|end_of_text|>", "<|eot_id|>"},
    "llama-spm": {"</s>"},
    "qwen2": {"<|endoftext|>", "<|im_end|>"},
    "gpt-2": {"<|endoftext|>"},
    "gemma-4": {"<turn|>", "<eos>"},
}


@pytest.mark.parametrize("name", ENDS)
def test_ends(name: str) -> None:
    with GGUF(reference_files.vocabulary(name)) as model:
        tokenizer = Tokenizer.from_metadata(model.metadata)
    assert {tokenizer.token_text(token) for token in tokenizer.end_ids} >= ENDS[name]
    assert tokenizer.eos_id in tokenizer.end_ids
    for text in ENDS[name]:
        (token,) = tokenizer.encode(text, special=True)
        assert token in tokenizer.end_ids and tokenizer.token_text(token) == text
        assert tokenizer.decode([token]) == "" and tokenizer.decode([token], skip_special=False) == text
        assert len(tokenizer.encode(text)) > 1


@pytest.mark.parametrize(
    "text, ids",
    [
        ("<|user|>\nHello<|end|>\n<|assistant|>\n", [32010, 15043, 32007, 32001]),
        ("<|user|> \n\t Hello <|end|> \n", [32010, 15043, 29871, 32007]),
        ("<s>\n a<|endoftext|> \n b", [1, 29871, 13, 263, 32000, 259, 13, 289]),
        ("</s>\n c<|system|>\n\n", [2, 274, 32006]),
    ],
)
def test_special_tokens_of_phi_3_take_the_white_space_after_them(text: str, ids: list[int]) -> None:
    """These ids are llama.cpp's."""
    with GGUF(reference_files.vocabulary("phi-3")) as model:
        assert Tokenizer.from_metadata(model.metadata).encode(text, special=True) == ids
        other = {**model.metadata, "general.name": "Other", "general.architecture": "llama"}
        assert Tokenizer.from_metadata(other).encode("<|user|>\nHello", special=True) == [32010, 29871, 13, 10994]


PEAK = """
import sys
from seventy.gguf.file import GGUF
from seventy.machine.memory import peak_rss_bytes
from seventy.text.tokenizer import Tokenizer
before = peak_rss_bytes()
with GGUF(sys.argv[1]) as gguf:
    assert Tokenizer.from_metadata(gguf.metadata).vocab_size > 150_000
print(peak_rss_bytes() - before)
"""


@pytest.mark.parametrize(("name", "most"), [("qwen2", 150e6), ("gemma-4", 260e6)])
def test_a_large_vocabulary_takes_little_memory(name: str, most: float) -> None:
    path = reference_files.vocabulary(name)
    result = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    assert int(result.stdout) < most
