"""Where texts are cut, by the name in `tokenizer.ggml.pre`: beside llama.cpp's tokenizer on vocabularies made for it,
and beside tiktoken with OpenAI's and Moonshot's own expressions where llama.cpp approximates them."""

import itertools
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seventy.text.bpe import _BYTES
from seventy.text.pretokenizers import PRE_TOKENIZERS
from seventy.text.tokenizer import Tokenizer
from tests.support import vocabularies
from tests.support.texts import assigned, texts
from tests.support.vocabularies import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, LlamaCpp

CHARACTERS = {byte: character for character, byte in _BYTES.items()}
TOKENS, MERGES = vocabularies.any_two_bytes(seed=1)
# Words that no merges make: only where a word is looked up first is it one of these.
WHOLE = ["".join(CHARACTERS[byte] for byte in word.encode()) for word in ("Hello", " world", "你好", "123", "\n\n\n")]
ENDS = {"<s>": CONTROL, "</s>": CONTROL}


def byte_pair(pre: str, words: bool = True, **changes: Any) -> dict[str, Any]:
    tokens = [*TOKENS, *WHOLE] if words else TOKENS
    ids = {"bos_token_id": len(tokens), "eos_token_id": len(tokens) + 1}
    return vocabularies.metadata(tokens, ENDS, pre=pre, merges=MERGES, **ids | changes)


def has_case(char: str) -> bool:
    return ord(char) > 127 and unicodedata.category(char) in ("Lu", "Ll", "Lt")


def is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def is_odd_han(char: str) -> bool:
    """Of the script Han, but not in the blocks that llama.cpp lists."""
    ranges = ((0x2E80, 0x2FD5), (0x3005, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B), (0x16FE2, 0x16FF1))
    return ord(char) >= 0x2EBF0 or any(first <= ord(char) <= last for first, last in ranges)


def without(*kinds: Callable[[str], bool]) -> Callable[[str], str]:
    return lambda text: "".join(char for char in text if not any(kind(char) for kind in kinds))


# The part of a text that llama.cpp cuts as the published expressions do. Where it approximates them, it has
APPROXIMATED: dict[str, Callable[[str], str]] = {
    # no case beyond ASCII, and marks are no letters;
    **dict.fromkeys(("gpt-4o", "llama4", "minimax-m2", "kanana2", "tekken"), without(has_case, is_mark)),
    # the same, no case in ASCII either, and fewer characters are Han;
    "kimi-k2": lambda text: without(has_case, is_mark, is_odd_han)(text).lower(),
    # ~ is no symbol (mended in llama.cpp in 2026, after this wheel);
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm"), without("~".__eq__)),
    # the spaces beyond ASCII that lie in the range of the Chinese expression are not in it.
    **dict.fromkeys(("deepseek-llm", "deepseek-coder"), without(lambda char: char.isspace() and ord(char) > 127)),
}
# Newer than the wheel: the name glm5, and that glm4 looks words up first.
UNKNOWN_TO_LLAMA_CPP = {"glm5"}
NO_WHOLE_WORDS_IN_LLAMA_CPP = {"glm4"}


def test_some_text_tells_any_two_rules_apart() -> None:
    rules = {pre.patterns: name for name, pre in PRE_TOKENIZERS.items()}
    found = texts(300)
    cuts = {}
    for name in rules.values():
        tokenizer = Tokenizer.from_metadata(byte_pair(name))
        comparable = APPROXIMATED.get(name, str)
        cuts[name] = [(comparable(text) == text, tokenizer.encode(text)) for text in found]
    for one, other in itertools.combinations(rules.values(), 2):
        shown = sum(a != b for (ok, a), (also, b) in zip(cuts[one], cuts[other], strict=True) if ok and also)
        assert shown, (one, other)


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS.keys() - UNKNOWN_TO_LLAMA_CPP))
def test_words_are_cut_as_llama_cpp_does(pre: str, tmp_path: Path) -> None:
    metadata = byte_pair(pre, words=pre not in NO_WHOLE_WORDS_IN_LLAMA_CPP)
    theirs = LlamaCpp(vocabularies.write(tmp_path / "vocabulary.gguf", metadata))
    ours = Tokenizer.from_metadata(metadata)
    comparable = APPROXIMATED.get(pre, str)
    assert theirs.add_bos == ours.add_bos
    # Of the names of one rule, the others only show that llama.cpp has them for the same.
    first = pre == next(name for name, rules in PRE_TOKENIZERS.items() if rules == PRE_TOKENIZERS[pre])
    for text in map(comparable, texts(500 if first else 60)):
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.encode(text, special=True) == theirs.encode(text, special=True), text
    if not first:
        return

    @settings(deadline=None, max_examples=200)
    @given(st.text(st.characters(exclude_categories=["Cs", "Cn"])).map(assigned))
    def any_text(text: str) -> None:
        text = comparable(text)
        assert ours.encode(text) == theirs.encode(text), text

    any_text()


def test_words_that_are_tokens_are_looked_up_first() -> None:
    names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "glm4", "glm5", "tekken"}
    for pre in PRE_TOKENIZERS:
        metadata = vocabularies.metadata([*TOKENS[:256], *WHOLE, "ab"], {}, pre=pre, merges=["a b"])
        found = Tokenizer.from_metadata(metadata).encode("Hello world") == [256, 257]
        assert found == (pre in names), pre


# The expression of Kimi K2's tokenization_kimi.py (Moonshot AI), for tiktoken.
_KIMI = "|".join(
    [
        r"""[\p{Han}]+""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"""
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"""
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    ]
)


@pytest.mark.parametrize("pre", ["gpt-4o", "kimi-k2"])
def test_words_are_cut_as_tiktoken_does(pre: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiktoken = pytest.importorskip("tiktoken", reason="tiktoken is not installed")
    published = pytest.importorskip("tiktoken_ext.openai_public")
    ours = Tokenizer.from_metadata(byte_pair(pre, words=False))
    ranks = {ours.token_bytes(token): token for token in range(len(TOKENS))}
    monkeypatch.setattr(published, "load_tiktoken_bpe", lambda *_, **__: ranks)
    pattern = published.o200k_base()["pat_str"] if pre == "gpt-4o" else _KIMI
    theirs = tiktoken.Encoding(pre, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    # 'ſ is a contraction where case is ignored, and written out it is none.
    comparable = without("ſ".__eq__)
    for text in map(comparable, texts(1000)):
        assert ours.encode(text) == theirs.encode_ordinary(text), text

    @settings(deadline=None, max_examples=500)
    @given(st.text(st.characters(exclude_categories=["Cs", "Cn"])).map(assigned).map(comparable))
    def any_text(text: str) -> None:
        assert ours.encode(text) == theirs.encode_ordinary(text), text

    any_text()


def test_gemma_merges_characters_over_whole_lines(tmp_path: Path) -> None:
    alphabet = [*"abcdeABC12!,.\t▁'é你好한हि🙂\u200d\u00a0\u3000\r"]
    pairs = [(left, right) for left in alphabet for right in alphabet]
    random.Random(4).shuffle(pairs)
    newlines = ["\n" * n for n in (1, 2, 3, 4, 7)]
    merges = [f"{left} {right}" for left, right in [*pairs, ("\n\n", "\n\n"), ("\n", "\n"), ("\n\n", "\n")]]
    tokens = [*alphabet, *newlines, *(left + right for left, right in pairs), "<unused0>"]
    special = dict.fromkeys((f"<0x{byte:02X}>" for byte in range(256)), BYTE) | {
        "<bos>": CONTROL, "<eos>": CONTROL, "<unk>": UNKNOWN, "<turn|>": CONTROL, "<|channel>": USER_DEFINED,
        "</s>": NORMAL, "<|tool_response>": USER_DEFINED,
    }  # fmt: skip
    ids = {f"{name}_token_id": [*tokens, *special].index(f"<{name[:3]}>") for name in ("bos", "eos", "unknown")}
    metadata = vocabularies.metadata(tokens, special, model="gemma4", merges=merges, add_bos_token=False, **ids)
    theirs = LlamaCpp(vocabularies.write(tmp_path / "vocabulary.gguf", metadata))
    ours = Tokenizer.from_metadata(metadata)
    assert ours.add_bos and theirs.add_bos
    assert ours.end_ids == theirs.ends(range(ours.vocab_size))
    assert {ours.token_text(token) for token in ours.end_ids} == {"<eos>", "<turn|>", "<|tool_response>"}
    rng = random.Random(5)
    mixed = ["".join(rng.choices([*alphabet, " ", "\n", "\n\n", "<|channel>", "x"], k=30)) for _ in range(300)]
    for text in [*texts(300), *mixed, *("a" + "\n" * n + "b" for n in range(20)), "<unused0>\n</s>"]:
        for parsed in (False, True):
            assert ours.encode(text, parsed) == theirs.encode(text, parsed), text
        assert ours.decode(ours.encode(text), skip_special=False) == text.replace("▁", " ")


def test_gemma_3_is_sentence_piece_without_a_space_in_front(tmp_path: Path) -> None:
    pieces = ["▁", *"abcdehlowrt.,", "he", "ll", "llo", "hello", "▁hello", "▁w", "wo", "▁wo", "or", "▁wor", "▁▁", "ab"]
    kinds = {"<pad>": CONTROL, "<eos>": CONTROL, "<bos>": CONTROL, "<unk>": UNKNOWN}
    kinds |= dict.fromkeys(["\n", "\n\n", "\n\n\n", "  ", "   ", "<start_of_image>", "<table>"], USER_DEFINED)
    kinds |= {"<start_of_turn>": CONTROL, "<end_of_turn>": CONTROL}
    kinds |= {f"<0x{byte:02X}>": BYTE for byte in range(256)}
    metadata = vocabularies.metadata(
        pieces, kinds, model="llama", pre="default", scores=[-float(i) for i in range(len(pieces) + len(kinds))],
        bos_token_id=len(pieces) + 2, eos_token_id=len(pieces) + 1, unknown_token_id=len(pieces) + 3,
        add_space_prefix=False,
    )  # fmt: skip
    theirs = LlamaCpp(vocabularies.write(tmp_path / "vocabulary.gguf", metadata))
    ours = Tokenizer.from_metadata(metadata)
    assert ours.add_bos and theirs.add_bos
    assert ours.end_ids == theirs.ends(range(ours.vocab_size))
    rng = random.Random(6)
    mixed = ["".join(rng.choices([*pieces, " ", "\n", "<table>", "<end_of_turn>", "é"], k=30)) for _ in range(300)]
    for text in [*texts(300), *mixed]:
        for parsed in (False, True):
            assert ours.encode(text, parsed) == theirs.encode(text, parsed), text
