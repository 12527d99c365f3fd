"""Text to tokens and back, as the model's GGUF says and llama.cpp does."""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np

from seventy.errors import SeventyError
from seventy.text.bpe import BytePairEncoder, CharacterPairEncoder
from seventy.text.pretokenizers import PRE_TOKENIZERS
from seventy.text.sentencepiece import SentencePieceEncoder
from seventy.text.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary, byte_of

# Shorter texts are read at once, whatever comes of it.
_LONG_TEXT = 1 << 16
_END_OF_WORD = re.compile(rb"[^ ] ")


class _Encoder(Protocol):
    def encode(self, text: str) -> list[int]: ...

    @staticmethod
    def token_bytes(text: str) -> bytes: ...


# What a token that strips takes from the text after it.
_SPACES = " \t\n\v\f\r"


class Tokenizer:
    """`encode` adds no special token: whether a beginning-of-text token belongs in front is `add_bos`, and whether the
    end-of-text token belongs behind a text that is to become a vector is `add_eos`.

    `end_ids` are all tokens that end an answer. Ids outside of the vocabulary are a SeventyError.
    """

    def __init__(self, vocabulary: Vocabulary, encoder: _Encoder, add_bos: bool, space_prefix: bool) -> None:
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.end_ids = vocabulary.end_ids
        self.add_bos = add_bos and self.bos_id is not None
        self.add_eos = vocabulary.flag("add_eos_token", False) and self.eos_id is not None
        self._fill_in_the_middle = vocabulary.fill_in_the_middle
        self._tokens = vocabulary.tokens
        self._kinds = vocabulary.kinds
        self._encoder = encoder
        self._space_prefix = space_prefix
        self._specials = [(vocabulary.tokens[token], token) for token in vocabulary.specials()]
        # Found in the text even where special tokens are not parsed.
        hidden = CONTROL | UNKNOWN
        self._user_defined = [(text, token) for text, token in self._specials if not self._kinds[token] & hidden]
        self._strips = vocabulary.strips
        self._shown = frozenset[int]()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """Read `tokenizer.ggml.*`. Raises SeventyError for an unknown kind of tokenizer, or a broken one."""
        model = metadata.get("tokenizer.ggml.model")
        if model is None:
            raise SeventyError("the file has no tokenizer (tokenizer.ggml.model); get a complete GGUF of this model")
        kinds = {"gpt2": cls._byte_pair, "llama": cls._sentence_piece, "gemma4": cls._character_pair}
        if str(model) not in kinds:
            raise SeventyError(
                "tokenizer {model!r} is not supported; {kinds} work: get another model",
                model=str(model)[:80], kinds=", ".join(kinds),
            )
        return kinds[str(model)](metadata)

    @classmethod
    def _byte_pair(cls, metadata: Mapping[str, Any]) -> Self:
        vocabulary = Vocabulary(metadata, {})
        pre = metadata.get("tokenizer.ggml.pre", "default")
        # An iterator, so that the encoder may let go of the strings (19 MB of a 152k vocabulary) as it reads them.
        encoder = BytePairEncoder(vocabulary.ids, iter(vocabulary.strings("merges")), str(pre))
        add_bos = vocabulary.flag("add_bos_token", PRE_TOKENIZERS[pre].add_bos)
        return cls(vocabulary, encoder, add_bos, False)

    @classmethod
    def _character_pair(cls, metadata: Mapping[str, Any]) -> Self:
        vocabulary = Vocabulary(metadata, {})
        encoder = CharacterPairEncoder(vocabulary.ids, iter(vocabulary.strings("merges")))
        # Whatever the file says: early files said no, and the model needs it.
        return cls(vocabulary, encoder, True, False)

    @classmethod
    def _sentence_piece(cls, metadata: Mapping[str, Any]) -> Self:
        vocabulary = Vocabulary(metadata, {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0})
        scores = vocabulary.numbers("scores")
        if scores is None:
            scores = np.zeros(len(vocabulary.tokens))
        if np.isnan(scores).any():
            raise SeventyError("tokenizer.ggml.scores has values that are no numbers; download the model again")
        space_prefix = vocabulary.flag("add_space_prefix", True)
        encoder = SentencePieceEncoder(vocabulary.ids, scores.tolist(), vocabulary.unknown_id)
        return cls(vocabulary, encoder, vocabulary.flag("add_bos_token", True), space_prefix)

    def show(self, markers: Iterable[str]) -> None:
        """Make control tokens that are part of one of `markers` show in texts: they steer how an answer is read."""
        hidden = ((text, token) for text, token in self._specials if self.is_control(token))
        markers = tuple(markers)
        parts = (token for text, token in hidden if any(text in marker for marker in markers))
        self._shown = frozenset(parts) - self.end_ids

    @property
    def shows_control(self) -> bool:
        """Whether `show` named a control token."""
        return bool(self._shown)

    def has_special(self, text: str) -> bool:
        """Return whether a special token has this text."""
        return any(special == text for special, _ in self._specials)

    @cached_property
    def longest(self) -> int:
        """The most bytes that a token stands for: no more than its own text has."""
        return max(len(token.encode()) for token in self._tokens)

    @cached_property
    def _most_words(self) -> int:
        # Ends of words within one token, and the one that its own end may be.
        return 1 + max(len(_END_OF_WORD.findall(self.token_bytes(token))) for token in range(self.vocab_size))

    def fewest(self, text: str, enough: int = 1 << 62) -> int:
        """Return a lower bound of a text's number of tokens without tokenizing it, which takes seconds per megabyte.

        Stops once the bound reaches `enough`.
        """
        data = text.encode("utf-8", "surrogatepass")
        fewest = self.fewest_in(len(data), 0)
        words = 0
        # Pieces, because looking for a pattern holds the interpreter.
        for at in range(0, len(data) if len(data) >= _LONG_TEXT else 0, _LONG_TEXT):
            if fewest >= enough:
                break
            words += len(_END_OF_WORD.findall(data[at : at + _LONG_TEXT]))
            fewest = self.fewest_in(len(data), words)
        return fewest

    def fewest_in(self, size: int, words: int) -> int:
        """Return a lower bound of the number of tokens in a text of `size` bytes with `words` word ends ("x ")."""
        return max(size // self.longest, words // self._most_words if words else 0)

    def is_control(self, token: int) -> bool:
        """Return whether the token steers the model and is never part of a text."""
        return bool(self._kinds[token] & CONTROL)

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Convert a text to token ids. With `special`, written control tokens like <|im_end|> become tokens."""
        try:
            text.encode()
        except UnicodeEncodeError:
            # Half characters, of JSON for one, that no UTF-8 can hold: pairs become whole, the others U+FFFD.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        output: list[int] = []
        after_special = True
        for part in self._parts(text, self._specials if special else self._user_defined):
            if isinstance(part, int):
                output.append(part)
            else:
                output += self._encoder.encode(f" {part}" if self._space_prefix and after_special else part)
            after_special = isinstance(part, int)
        return output

    def encode_filled(self, template: str, texts: Mapping[str, str]) -> list[int]:
        """Encode a template whose places, `{name}`, hold these texts; special tokens count in the template only."""
        places = re.compile("|".join(rf"\{{{name}\}}" for name in texts))
        output: list[int] = []
        for part in self._parts(template, self._specials):
            if isinstance(part, int):
                output.append(part)
            else:
                output += self.encode(places.sub(lambda place: texts[place[0][1:-1]], part))
        return output

    @property
    def fills_in_the_middle(self) -> bool:
        """Whether the vocabulary has the tokens for fill-in-the-middle prompts."""
        return all(f"fim_{part}" in self._fill_in_the_middle for part in ("pre", "suf", "mid"))

    def encode_infill(self, before: str, after: str, files: Sequence[tuple[str, str]] = ()) -> list[int]:
        """Make the token ids that ask the model to fill in between two texts.

        `files` are names and texts of other files to show first, if the model has tokens for that. Raises SeventyError
        if the model has no fill-in-the-middle tokens.
        """
        if not self.fills_in_the_middle:
            raise SeventyError(
                "this model does not fill in the middle (it has no tokens for that); leave the suffix out"
            )
        marks = self._fill_in_the_middle
        asked = [marks["fim_pre"], *self.encode(before), marks["fim_suf"], *self.encode(after), marks["fim_mid"]]
        if not files:
            return asked
        if "fim_rep" not in marks or "fim_sep" not in marks:
            return [*self.encode("".join(f"{name}\n{text}\n\n" for name, text in files)), *asked]
        shown = [marks["fim_rep"], *self.encode("project\n")]
        for name, text in files:
            shown += [marks["fim_sep"], *self.encode(f"{name}\n{text}\n")]
        return [*shown, marks["fim_sep"], *self.encode("file\n"), *asked]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Convert all token ids of a text to the text. For a text that is still being written, see StreamDecoder."""
        data = b"".join(self.token_bytes(token, skip_special) for token in ids)
        if self._space_prefix and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        """Return the token as the vocabulary writes it."""
        self._check(token)
        return self._tokens[token]

    def token_bytes(self, token: int, skip_special: bool = False) -> bytes:
        """Return a token's bytes. With `skip_special`, control tokens have none, except those in `show`."""
        self._check(token)
        text, kind = self._tokens[token], int(self._kinds[token])
        if kind & (CONTROL | UNKNOWN | USER_DEFINED):
            hidden = kind & (CONTROL | UNKNOWN) and token not in self._shown
            return b"" if skip_special and hidden else text.encode()
        if kind & NORMAL:
            return self._encoder.token_bytes(text)
        return byte_of(text) if kind & BYTE else b""

    def _check(self, token: int) -> None:
        if not 0 <= token < self.vocab_size:
            raise SeventyError(
                "token {token} is outside of the vocabulary of {vocab_size}; check the ids",
                token=token, vocab_size=self.vocab_size,
            )

    def _parts(self, text: str, specials: list[tuple[str, int]]) -> list[str | int]:
        """Cut the text at special tokens, longest first; empty parts are left out."""
        parts: list[str | int] = [text] if text else []
        for special, token in specials:
            if special not in text:
                continue
            cut: list[str | int] = []
            for part in parts:
                if isinstance(part, int) or special not in part:
                    cut.append(part)
                    continue
                first, *others = part.split(special)
                if first:
                    cut.append(first)
                for other in others:
                    cut.append(token)
                    other = other.lstrip(_SPACES) if token in self._strips else other
                    if other:
                        cut.append(other)
            parts = cut
        return parts


class StreamDecoder:
    """Ids one by one to text in whole characters; what is given out is never taken back.

    Bytes that cannot become a character any more come out as U+FFFD. The text continues something: a leading space
    stays, unlike in Tokenizer.decode.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        # Bytes of a character that was begun.
        self._begun = b""

    def push(self, token: int) -> str:
        return self._decode(self._tokenizer.token_bytes(token, self._skip_special), False)

    def flush(self) -> str:
        """Return the rest of the text: U+FFFD for an incomplete character."""
        return self._decode(b"", True)

    def _decode(self, data: bytes, final: bool) -> str:
        data = self._begun + data
        text, read = codecs.utf_8_decode(data, "replace", final)
        self._begun = data[read:]
        return text
