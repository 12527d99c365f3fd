"""What a model's tokens are, and which of them are special, from `tokenizer.ggml.*`.

Follows llama.cpp's llama-vocab.cpp: some tokens are special by their text whatever the file says, because many
files say it wrong. It does not know how text becomes tokens.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from seventy.errors import SeventyError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = (1 << kind for kind in range(1, 7))

# Ends of a turn or a text; llama.cpp stops at each of them in every model that has it.
_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
)  # fmt: skip
# Tokens of fill-in-the-middle, by the metadata key that names them; three of the kinds end a text.
_FILL_IN_THE_MIDDLE = {
    "fim_pre": (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}  # fmt: skip
_FILL_ENDS = ("fim_pad", "fim_rep", "fim_sep")
_ALWAYS_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
_STRIPPING_NAMES, _NEVER_STRIP = ("phi-3", "phi3", "phi 3"), ("<unk>", "<s>", "<|endoftext|>")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary:
    """`tokens` by id, `ids` by text, `kinds` (bits, uint8) by id, and the ids that have a meaning."""

    def __init__(self, metadata: Mapping[str, Any], defaults: Mapping[str, int]) -> None:
        self._metadata = metadata
        tokens = self.strings("tokens")
        if "" in tokens:
            tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
        self.tokens = tokens
        self.ids = dict(zip(tokens, range(len(tokens)), strict=True))
        if len(self.ids) != len(tokens):
            twice = next(token for i, token in enumerate(tokens) if self.ids[token] != i)
            raise SeventyError("the tokenizer has the token {twice!r} twice; download it again", twice=twice[:80])
        types = self.numbers("token_type")
        if types is None:
            self.kinds = np.full(len(tokens), NORMAL, np.uint8)
        elif types.dtype.kind not in "iu":
            raise SeventyError("tokenizer.ggml.token_type is no list of whole numbers; download the model again")
        else:
            bits = np.array([0, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE, 0], np.uint8)
            self.kinds = bits[np.clip(np.where(types < 0, 7, types), 0, 7).astype(np.intp)]
        self.bos_id = self._special("bos_token_id", defaults)
        self.eos_id = self._special("eos_token_id", defaults)
        self.unknown_id = self._special("unknown_token_id", defaults)
        # Of fim_pre, fim_suf ...: those there are.
        self.fill_in_the_middle: dict[str, int] = {}
        self.end_ids = self._find_ends()
        # Special tokens that take the white space after them.
        self.strips = self._find_strips()

    def strings(self, key: str) -> list[str]:
        """Return the list of strings at `tokenizer.ggml.{key}`. Raises SeventyError if it is not one."""
        value = self._metadata.get(f"tokenizer.ggml.{key}")
        if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or not len(value):
            raise SeventyError("tokenizer.ggml.{key} is missing or no list; download the model again", key=key)
        strings = list(value)
        if not isinstance(strings[0], str):
            raise SeventyError("tokenizer.ggml.{key} is no list of strings; download the model again", key=key)
        return strings

    def numbers(self, key: str) -> np.ndarray | None:
        """Return the array of numbers, one per token, at `tokenizer.ggml.{key}`; None if the key is absent."""
        value = self._metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            return None
        if isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) < len(self.tokens):
            raise SeventyError(
                "tokenizer.ggml.{key} is no list of {tokens_count} numbers, one for each token; download the model "
                "again",
                key=key, tokens_count=len(self.tokens),
            )
        if len(value) and isinstance(value[0], str):
            raise SeventyError(
                "tokenizer.ggml.{key} is a list of strings, not numbers; download the model again",
                key=key,
            )
        return np.asarray(value)[: len(self.tokens)]

    def flag(self, key: str, default: bool) -> bool:
        value = self._metadata.get(f"tokenizer.ggml.{key}", default)
        return value if isinstance(value, bool) else default

    def specials(self) -> list[int]:
        """Return the ids of tokens that are searched for in the raw text first, longest text first."""
        ids = np.flatnonzero(self.kinds & (CONTROL | USER_DEFINED | UNKNOWN)).tolist()
        return sorted(ids, key=lambda token: -len(self.tokens[token].encode()))

    def _special(self, key: str, defaults: Mapping[str, int]) -> int | None:
        for value in (self._metadata.get(f"tokenizer.ggml.{key}"), defaults.get(key)):
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.tokens):
                return value
        return None

    def _find_ends(self) -> frozenset[int]:
        ends = set[int]()
        for kind, names in _FILL_IN_THE_MIDDLE.items():
            token = self._special(f"{kind}_token_id", {})
            if token is None:
                token = self._make_control(names)
            if token is not None:
                self.fill_in_the_middle[kind] = token
                if kind in _FILL_ENDS:
                    ends.add(token)
        for name in _ENDS:
            token = self._make_control((name,))
            if token is not None:
                ends.add(token)
        for name in _ALWAYS_SHOWN:
            if name in self.ids:
                self.kinds[self.ids[name]] = USER_DEFINED
        for key in ("eos_token_id", "eot_token_id", "eom_token_id"):
            token = self._special(key, {"eos_token_id": -1 if self.eos_id is None else self.eos_id})
            if token is not None:
                ends.add(token)

        def has(*names: str) -> bool:
            return any(self.ids.get(name) in ends for name in names)

        # Where a model ends its answers by other tokens, these are parts of an answer.
        if has("<|end|>") and ((has("<|return|>") and has("<|call|>", "<|calls|>")) or
                               (has("<|flush|>") and has("<|call|>", "<|calls|>"))):  # fmt: skip
            ends.discard(self.ids["<|end|>"])
            self.kinds[self.ids["<|end|>"]] = USER_DEFINED
        if has("</s>") and has("<|tool_response>", "<|plamo:eos|>"):
            ends.discard(self.ids["</s>"])
            self.kinds[self.ids["</s>"]] = NORMAL
        return frozenset(ends)

    def _find_strips(self) -> frozenset[int]:
        """Find what no file says: Phi-3's special tokens strip, but for those that its base model has, too."""
        name, architecture = (str(self._metadata.get(f"general.{key}", "")).lower() for key in ("name", "architecture"))
        named = any(part in name for part in _STRIPPING_NAMES)
        if self._metadata.get("tokenizer.ggml.model") != "llama" or not (architecture == "phi3" or named):
            return frozenset()
        return frozenset(token for token in self.specials() if self.tokens[token] not in _NEVER_STRIP)

    def _make_control(self, names: tuple[str, ...]) -> int | None:
        """The first of these tokens there is, now a control token: in files it often is said to be text."""
        for name in names:
            if name in self.ids:
                token = self.ids[name]
                self.kinds[token] |= CONTROL
                return token
        return None


def byte_of(text: str) -> bytes:
    """Return the byte that a byte token such as <0x0A> stands for, or nothing for another text."""
    match = _BYTE_TOKEN.fullmatch(text)
    return bytes.fromhex(match[1]) if match else b""
