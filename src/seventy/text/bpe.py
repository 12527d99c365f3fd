"""Byte-pair encoding as GPT-2, Llama 3 and Qwen do it (`tokenizer.ggml.model` gpt2), on the `tokenizers` library."""

from collections.abc import Iterable
from typing import cast

from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as _Library

from seventy.errors import SeventyError
from seventy.text.pretokenizers import PRE_TOKENIZERS


def _byte_characters() -> dict[str, int]:
    """GPT-2's one printable character for each byte: itself where it is printable, else 256 and up in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_characters()


class BytePairEncoder:
    """Text without special tokens to ids. SeventyError for an unknown pre-tokenizer or merges that make no sense."""

    def __init__(self, ids: dict[str, int], merges: Iterable[str], pre: str) -> None:
        if pre not in PRE_TOKENIZERS:
            raise SeventyError(
                f"unknown pre-tokenizer {pre[:80]!r}: text would be cut wrongly; "
                f"take another model, with one of: {', '.join(sorted(PRE_TOKENIZERS))}"
            )
        rules = PRE_TOKENIZERS[pre]
        # Of equal merges the first one counts; the library would take the last.
        pairs = cast(list[tuple[str, str]], [tuple(merge.split(" ", 1)) for merge in dict.fromkeys(merges)])
        try:
            model = models.BPE(vocab=ids, merges=pairs, ignore_merges=rules.whole_words)
        except Exception as error:
            # The library has no exception of its own; of a token that is not there it says which it was.
            halves = next((pair for pair in pairs if len(pair) != 2), None)
            reason = " ".join(str(error).split())[:200] if halves is None else f"{halves[0][:80]!r} is no pair"
            raise SeventyError(
                f"the merges of the tokenizer do not fit its tokens ({reason}); download it again"
            ) from None
        self._library = _Library(model)
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns]
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._library.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])

    def encode(self, text: str) -> list[int]:
        return self._library.encode(text, add_special_tokens=False).ids

    @staticmethod
    def token_bytes(text: str) -> bytes:
        """The bytes a normal token stands for; characters that stand for no byte stay what they are."""
        return b"".join(bytes((_BYTES[char],)) if char in _BYTES else char.encode() for char in text)
