from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seventy.errors import SeventyError
from seventy.gguf.file import GGUF
from seventy.text.bpe import _BYTES
from seventy.text.pretokenizers import PRE_TOKENIZERS
from seventy.text.sentencepiece import SentencePieceEncoder
from seventy.text.tokenizer import StreamDecoder, Tokenizer
from tests.support import gguf_writer as writer
from tests.support import vocabularies
from tests.support.tiny import byte_tokens

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "r l", "Ġwo rl", "Ġworl d"]
WORDS = ["".join(merge.split(" ")) for merge in MERGES]
SPECIALS = {"<|im_start|>": CONTROL, "<|im_end|>": NORMAL, "<think>": USER_DEFINED, "<|pad|>": UNUSED}
TOKENS = [*_BYTES, *WORDS, *SPECIALS]


def byte_pair(**changes: Any) -> dict[str, Any]:
    metadata = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": TOKENS,
        "token_type": [NORMAL] * (len(TOKENS) - len(SPECIALS)) + list(SPECIALS.values()),
        "merges": MERGES,
        "eos_token_id": TOKENS.index("<|im_end|>"),
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items() if value is not None}


PIECES = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL} | {f"<0x{byte:02X}>": BYTE for byte in range(256)}
PIECES |= dict.fromkeys(["▁", "a", "b", "c", "▁a", "ab", "bc", "▁ab", "abc", "aa", "▁▁", "你"], NORMAL)


def sentence_piece(**changes: Any) -> dict[str, Any]:
    metadata = {
        "model": "llama",
        "tokens": list(PIECES),
        "token_type": list(PIECES.values()),
        "scores": [float(-i) for i in range(len(PIECES))],
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items() if value is not None}


def ids(*texts: str) -> list[int]:
    return [TOKENS.index(text) for text in texts]


def test_byte_pairs_from_a_file(tmp_path: Path) -> None:
    with GGUF(writer.write(tmp_path / "x.gguf", byte_pair())) as model:
        tokenizer = Tokenizer.from_metadata(model.metadata)
    assert tokenizer.encode("hello world") == ids("hello", "Ġworld")
    assert tokenizer.encode("") == []
    assert tokenizer.decode(ids("hello", "Ġworld")) == "hello world"
    assert tokenizer.vocab_size == len(TOKENS)
    assert tokenizer.token_text(TOKENS.index("Ġworld")) == "Ġworld"
    assert tokenizer.token_bytes(TOKENS.index("Ġworld")) == b" world"
    assert (tokenizer.bos_id, tokenizer.add_bos) == (None, False)


def test_special_tokens() -> None:
    tokenizer = Tokenizer.from_metadata(byte_pair())
    start, end, think, pad = ids(*SPECIALS)
    assert tokenizer.encode("<|im_start|>hello<|im_end|>", special=True) == [start, *ids("hello"), end]
    assert start not in tokenizer.encode("<|im_start|>hello<|im_end|>")
    # User-defined tokens are found in any text; an end of turn is a control token whatever its type says.
    assert tokenizer.encode("hello<think>hello") == [*ids("hello"), think, *ids("hello")]
    assert end not in tokenizer.encode("<|im_end|>")
    assert tokenizer.end_ids == {end} and tokenizer.eos_id == end
    assert tokenizer.decode([start, think, end]) == "<think>"
    assert tokenizer.decode([start, think, end], skip_special=False) == "<|im_start|><think><|im_end|>"
    assert tokenizer.decode([pad], skip_special=False) == ""


def test_defaults_follow_the_pre_tokenizer() -> None:
    for pre, expected in {"llama-bpe": True, "smollm": False, "tekken": True}.items():
        assert Tokenizer.from_metadata(byte_pair(pre=pre, bos_token_id=5)).add_bos is expected
        assert Tokenizer.from_metadata(byte_pair(pre=pre, bos_token_id=5, add_bos_token=False)).add_bos is False
        assert Tokenizer.from_metadata(byte_pair(pre=pre, add_bos_token=True)).add_bos is False
    assert Tokenizer.from_metadata(byte_pair(pre=None)).encode("hello") == ids("hello")


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_gives_the_text_back(pre: str) -> None:
    tokenizer = Tokenizer.from_metadata(byte_pair(pre=pre))
    text = "Hello, wörld! It's 1234567 o'clock;\r\n\n\tfür 你好，世界。 🙂👍🏽  \u3000 'LL ｆｏｏ x==y\x00\x7f "
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_half_characters() -> None:
    tokenizer = Tokenizer.from_metadata(byte_pair())
    assert tokenizer.decode(tokenizer.encode("a\ud83d\ude42b\ud83dc")) == "a🙂b\ufffdc"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, "no tokenizer"),
        (byte_pair(model="bert"), "'bert' is not supported"),
        (byte_pair(model=7), "'7' is not supported"),
        (byte_pair(pre="nobody"), r"unknown pre-tokenizer 'nobody'.*llama-bpe.*qwen2"),
        (byte_pair(pre=3), "unknown pre-tokenizer"),
        (byte_pair(tokens=None), "tokens is missing"),
        (byte_pair(tokens="abc"), "no list"),
        (byte_pair(tokens=[1, 2]), "no list of strings"),
        (byte_pair(tokens=[*TOKENS[:-1], "a"]), "the token 'a' twice"),
        (byte_pair(merges=None), "merges is missing"),
        (byte_pair(merges=["h e", "x"]), "do not fit its tokens .'x' is no pair."),
        (byte_pair(merges=["h zz"]), "do not fit"),
        (byte_pair(merges=["z q"]), "do not fit"),
        (byte_pair(token_type=[1, 2]), "one for each token"),
        (byte_pair(token_type=["a"] * len(TOKENS)), "list of strings, not numbers"),
        (byte_pair(token_type=[0.5] * len(TOKENS)), "whole numbers"),
        (sentence_piece(scores=[float("nan")] * len(PIECES)), "no numbers"),
        (sentence_piece(scores=[0.0]), "one for each token"),
    ],
)
def test_broken_tokenizers(metadata: dict[str, Any], expected: str) -> None:
    with pytest.raises(SeventyError, match=expected) as error:
        Tokenizer.from_metadata(metadata)
    assert "\n" not in str(error.value)


def test_odd_but_harmless() -> None:
    tokens = [*TOKENS[:-1], ""]
    tokenizer = Tokenizer.from_metadata(byte_pair(tokens=tokens, eos_token_id=99999, bos_token_id="x", token_type=None))
    assert (tokenizer.eos_id, tokenizer.bos_id) == (None, None)
    assert tokenizer.token_text(len(tokens) - 1) == f"[EMPTY_{len(tokens) - 1}]"
    types = np.array([99, -1, 0] + [1] * (len(TOKENS) - 3))
    assert Tokenizer.from_metadata(byte_pair(token_type=types)).decode([0, 1, 2]) == ""
    for token in (-1, len(TOKENS)):
        with pytest.raises(SeventyError, match="outside of the vocabulary"):
            tokenizer.decode([token])


def test_sentence_pieces() -> None:
    tokenizer = Tokenizer.from_metadata(sentence_piece())
    names = list(PIECES)

    def pieces(text: str, special: bool = False) -> list[str]:
        return [names[token] for token in tokenizer.encode(text, special)]

    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, True)
    assert tokenizer.end_ids == {2}
    assert pieces("ab") == ["▁ab"]
    assert pieces("ab</s>ab c", special=True) == ["▁ab", "</s>", "▁ab", "▁", "c"]
    assert pieces("é你") == ["▁", "<0xC3>", "<0xA9>", "你"]
    assert tokenizer.decode(tokenizer.encode("ab é你  c")) == "ab é你  c"
    assert tokenizer.decode([1, *tokenizer.encode("ab")]) == "ab"
    plain = Tokenizer.from_metadata(sentence_piece(add_space_prefix=False))
    assert plain.encode("ab") == [names.index("ab")]


def test_sentence_pieces_without_byte_tokens() -> None:
    encoder = SentencePieceEncoder({"<unk>": 0, "a": 1, "Ã": 2}, [0.0] * 3, 0)
    assert encoder.encode("aé") == [1, 0, 0]


def slow_sentence_piece(text: str, ids: dict[str, int], scores: list[float]) -> list[str]:
    """Again and again the best pair of neighbours, the leftmost of equals."""
    symbols = list(text)
    while True:
        pairs = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in ids]
        if not pairs:
            return symbols
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


PIECE = st.text("ab▁", min_size=1, max_size=5)


@settings(deadline=None)
@given(pieces=st.sets(PIECE, max_size=25), text=st.text("ab ", min_size=1, max_size=30), seed=st.integers(0, 9))
def test_sentence_pieces_equal_the_slow_search(pieces: set[str], text: str, seed: int) -> None:
    names = ["a", "b", "▁", *sorted(pieces - {"a", "b", "▁"})]
    ids = {name: i for i, name in enumerate(names)}
    scores = [float((i * 7 + seed) % 5) for i in range(len(names))]
    encoder = SentencePieceEncoder(ids, scores, None)
    expected = slow_sentence_piece(text.replace(" ", "▁"), ids, scores)
    assert [names[token] for token in encoder.encode(text)] == expected


@settings(deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    for tokenizer in _both:
        # SentencePiece writes spaces so, and cannot tell such a character from a space.
        expected = text.replace("▁", " ") if tokenizer is _both[1] else text
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == expected
        stream = StreamDecoder(tokenizer)
        streamed = "".join(stream.push(token) for token in ids) + stream.flush()
        assert streamed in (expected, " " + expected)
        assert tokenizer.decode(tokenizer.encode(text, special=True), skip_special=False) == expected


_both = [
    Tokenizer.from_metadata(byte_pair()),
    Tokenizer.from_metadata(sentence_piece()),
]


def test_stream_gives_whole_characters() -> None:
    tokenizer = Tokenizer.from_metadata(byte_pair())
    stream = StreamDecoder(tokenizer)
    assert [stream.push(token) for token in tokenizer.encode("a🙂é")] == ["a", "", "", "", "🙂", "", "é"]
    # The first of two bytes of é, then a letter: it is certain only now that no é will come.
    first = tokenizer.encode("é")[0]
    assert (stream.push(first), stream.push(TOKENS.index("a"))) == ("", "\ufffda")
    assert (stream.push(first), stream.flush()) == ("", "\ufffd")
    assert stream.push(TOKENS.index("hello")) == "hello"


@settings(deadline=None)
@given(st.lists(st.integers(0, len(TOKENS) - 1), max_size=20))
def test_stream_of_any_ids(ids: list[int]) -> None:
    tokenizer = _both[0]
    stream = StreamDecoder(tokenizer)
    assert "".join(stream.push(token) for token in ids) + stream.flush() == tokenizer.decode(ids)


# What a file can hold: one value, or a list of values of one type.
INTEGERS = st.integers(-(1 << 31), (1 << 31) - 1)
SCALARS = st.booleans(), INTEGERS, st.floats(width=32), st.text(max_size=5)
VALUES = st.one_of(st.none(), *SCALARS, *(st.lists(scalar, max_size=6) for scalar in SCALARS))
AS_LONG = {"min_size": len(TOKENS), "max_size": len(TOKENS)}


@settings(deadline=None)
@given(
    st.sampled_from(["gpt2", "llama"]),
    st.dictionaries(
        st.sampled_from(["tokens", "token_type", "merges", "scores", "bos_token_id", "add_bos_token", "pre"]),
        VALUES | st.lists(INTEGERS, **AS_LONG) | st.lists(st.floats(width=32), **AS_LONG),
        max_size=3,
    ),
    st.text(max_size=20),
)
def test_any_metadata_is_a_tokenizer_or_one_sentence(model: str, changes: dict[str, Any], text: str) -> None:
    metadata = byte_pair(**changes) if model == "gpt2" else sentence_piece(**changes)
    try:
        tokenizer = Tokenizer.from_metadata(metadata)
        tokenizer.decode(tokenizer.encode(text, special=True))
    except SeventyError as error:
        assert "\n" not in str(error)


def test_a_text_has_at_least_as_many_tokens_as_its_bytes_say() -> None:
    metadata = vocabularies.metadata([*byte_tokens(), "ab"], {"<end>": CONTROL}, pre="smollm", merges=["a b"])
    tokenizer = Tokenizer.from_metadata(metadata)
    for text in ("", "ab" * 100, "<end>" * 50, "ä" * 70, "\U0001f600 \n" * 40):
        assert tokenizer.fewest(text) <= len(tokenizer.encode(text, special=True))
    assert tokenizer.fewest("ab" * 100) == 40
    words = "ab a " * 20_000
    assert 40_000 <= tokenizer.fewest(words) <= len(tokenizer.encode(words))
