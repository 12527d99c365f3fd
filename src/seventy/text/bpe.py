"""Byte-pair encoding on the `tokenizers` library: over bytes, as GPT-2, Llama 3 and Qwen do it (`tokenizer.ggml.model`
gpt2), and over characters, as Gemma 4 does it (gemma4)."""

import os
import re
from collections.abc import Iterable
from typing import Any, cast

from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as _Library

from seventy.errors import SeventyError
from seventy.language import t
from seventy.text.pretokenizers import PRE_TOKENIZERS
from seventy.text.sentencepiece import SPACE


def _byte_characters() -> dict[str, int]:
    """GPT-2's one printable character for each byte: itself where it is printable, else 256 and up in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_characters()
# From so many characters on a text is read beside other Python threads; shorter ones take less than a millisecond.
_LONG_TEXT = 1 << 10
# The library would read a batch with threads of its own, which there is no use for: a batch here is one text.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class BytePairEncoder:
    """Text without special tokens to ids. SeventyError for an unknown pre-tokenizer or merges that make no sense."""

    def __init__(self, ids: dict[str, int], merges: Iterable[str], pre: str) -> None:
        if pre not in PRE_TOKENIZERS:
            raise SeventyError(
                "unknown pre-tokenizer {pre!r}: text would be cut wrongly; take another model, with one of: "
                "{pre_tokenizers}",
                pre=pre[:80], pre_tokenizers=", ".join(sorted(PRE_TOKENIZERS)),
            )
        rules = PRE_TOKENIZERS[pre]
        self._library = _library(ids, merges, ignore_merges=rules.whole_words)
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns]
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._library.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])

    def encode(self, text: str) -> list[int]:
        return _ids(self._library, text)

    @staticmethod
    def token_bytes(text: str) -> bytes:
        """Return the bytes that a normal token stands for. Characters that do not encode a byte stay as they are."""
        return b"".join(bytes((_BYTES[char],)) if char in _BYTES else char.encode() for char in text)


class CharacterPairEncoder:
    """Text without special tokens to ids: pairs of characters are merged over a whole line, spaces written as U+2581.

    A run of newlines that is a token becomes that token. A character that is no token becomes its byte tokens, <0x0A>.
    SeventyError for merges that make no sense.
    """

    _LINES = re.compile(r"[^\n]+|\n+")

    def __init__(self, ids: dict[str, int], merges: Iterable[str]) -> None:
        self._library = _library(ids, merges, byte_fallback=True)
        self._newlines = {text: token for text, token in ids.items() if not text.strip("\n")}

    def encode(self, text: str) -> list[int]:
        output: list[int] = []
        for line in self._LINES.findall(text.replace(" ", SPACE)):
            newlines = self._newlines.get(line)
            if newlines is None:
                output += _ids(self._library, line)
            else:
                output.append(newlines)
        return output

    @staticmethod
    def token_bytes(text: str) -> bytes:
        """Return the bytes that a normal token stands for."""
        return text.replace(SPACE, " ").encode()


def _ids(library: _Library, text: str) -> list[int]:
    """The library's ids of a text. It lets other Python threads run meanwhile only where it is given a batch."""
    if len(text) < _LONG_TEXT:
        return library.encode(text, add_special_tokens=False).ids
    return library.encode_batch([text], add_special_tokens=False)[0].ids


def _library(ids: dict[str, int], merges: Iterable[str], **options: Any) -> _Library:
    # The halves are the vocabulary's own strings: a second copy of Gemma 4's million of them would take 50 MB.
    own = {text: text for text in ids}
    # Of equal merges the first one counts; the library would take the last.
    halves = (merge.split(" ", 1) for merge in dict.fromkeys(merges))
    pairs = cast(list[tuple[str, str]], [tuple(own.get(half, half) for half in pair) for pair in halves])
    del own
    try:
        return _Library(models.BPE(vocab=ids, merges=pairs, **options))
    except Exception as error:
        # The library has no exception of its own; of a token that is not there it says which it was.
        odd = next((pair for pair in pairs if len(pair) != 2), None)
        reason = " ".join(str(error).split())[:200] if odd is None else t("{odd!r} is no pair", odd=odd[0][:80])
        raise SeventyError(
            "the merges of the tokenizer do not fit its tokens ({reason}); download it again",
            reason=reason,
        ) from None
