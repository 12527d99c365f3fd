"""Answers that must follow a JSON schema, a regular expression or a grammar, through llguidance.

A constraint says before each token which ones may come. It does not know what the tokens mean to the user.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import llguidance
import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.text.tokenizer import Tokenizer


class Constraint(Protocol):
    """What the scheduler needs of a constraint."""

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Makes every token impossible that may not come next."""

    def accept(self, token: int) -> None:
        """Says which one came."""


class _Matcher:
    """One text on its way through a grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._bits = np.zeros(-(-size // 32), np.int32)

    def mask(self, logits: NDArray[np.float32]) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: len(logits)]
        logits[: len(allowed)][allowed == 0] = -np.inf
        logits[len(allowed) :] = -np.inf

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise SeventyError(f"the grammar cannot go on: {_line(self._matcher.get_error())}")


class Grammars:
    """Makes constraints for a tokenizer; the vocabulary is prepared on first use (a second for 128k tokens)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def _vocabulary(self) -> llguidance.LLTokenizer:
        return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Wrapped(self._tokenizer, marks=False)))

    @cached_property
    def _with_marks(self) -> llguidance.LLTokenizer:
        if not self._tokenizer.shows_control:
            return self._vocabulary
        return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Wrapped(self._tokenizer, marks=True)))

    def json(self) -> Constraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def json_schema(self, schema: Mapping[str, Any]) -> Constraint:
        """JSON that follows the schema. SeventyError for a schema llguidance does not know."""
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides={"whitespace_pattern": r"[ \n]{0,2}"}
            )
        except ValueError as error:
            raise SeventyError(f"the JSON schema cannot be used: {_line(str(error))}") from None
        return self._constraint(grammar, "the JSON schema")

    def regex(self, pattern: str) -> Constraint:
        """Text that matches the whole regular expression (Rust's syntax)."""
        return self._constraint(llguidance.LLMatcher.grammar_from_regex(pattern), "the regular expression")

    def lark(self, text: str) -> Constraint:
        """Text of a context-free grammar as llguidance writes them, or as llama.cpp does (GBNF: `root ::= ...`)."""
        if "::=" in text:
            try:
                text = llguidance.gbnf_to_lark.any_to_lark(text)
            except Exception as error:
                raise SeventyError(f"the grammar cannot be used: {_line(str(error))}") from None
        return self._constraint(llguidance.LLMatcher.grammar_from_lark(text), "the grammar")

    def calls(self, lark: str) -> Constraint:
        """Text of a grammar of calls, in which the control tokens that mark them are text."""
        return self._constraint(llguidance.LLMatcher.grammar_from_lark(lark), "the tools' schema", self._with_marks)

    def _constraint(self, grammar: str, what: str, vocabulary: llguidance.LLTokenizer | None = None) -> Constraint:
        matcher = llguidance.LLMatcher(vocabulary or self._vocabulary, grammar, log_level=0)
        if matcher.is_error():
            raise SeventyError(f"{what} cannot be used: {_line(matcher.get_error())}")
        return _Matcher(matcher, self._tokenizer.vocab_size)


class _Wrapped:
    """The vocabulary as llguidance asks for it; `marks`: control tokens that show in answers are text."""

    def __init__(self, tokenizer: Tokenizer, marks: bool) -> None:
        ids = range(tokenizer.vocab_size)
        shown = [
            b"" if tokenizer.is_control(id) and not marks else tokenizer.token_bytes(id, skip_special=True) for id in ids
        ]
        # Special tokens are never text; 0xFF marks them, as llguidance wants.
        self.tokens = [data or b"\xff" + tokenizer.token_text(id).encode() for id, data in zip(ids, shown, strict=True)]
        self.special_token_ids = [id for id in ids if not shown[id]]
        ends = sorted(tokenizer.end_ids)
        self.eos_token_id = tokenizer.eos_id if tokenizer.eos_id is not None else ends[0] if ends else 0
        self.bos_token_id = tokenizer.bos_id
        self._encode = tokenizer.encode

    def __call__(self, text: bytes | str) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
