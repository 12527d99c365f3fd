"""Answers that must follow a JSON schema, a regular expression or a grammar, through llguidance.

A constraint says before each token which ones may come. It does not know what the tokens mean to the user.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import llguidance
import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.language import t
from seventy.text.calls.arguments import WHITESPACE
from seventy.text.calls.base import Tool, parameters
from seventy.text.schema import closed, relaxed
from seventy.text.tokenizer import Tokenizer

# What one token may cost: all answers of a step wait for it. With 600 items in a row a mask took 28 s, with 400 9 ms
# (docs/lab.md); grammars that people write have some tens.
_MAX_ITEMS_IN_ROW, _MAX_ITEMS_OF_STEP = 400, 20_000
# What all masks of an answer may cost: so many seconds of CPU time at once, and so many for each token.
_SECONDS, _SECONDS_A_TOKEN = 1.0, 0.02
# A mask that takes longer than this is no longer waited for by other answers.
_SLOW_SECONDS = 0.001


class ConstraintError(SeventyError):
    """The schema, expression or grammar cannot be followed: the fault of the request."""


class Constraint(Protocol):
    """What the scheduler requires of a constraint. `gone` lists the parts of a schema that it does not enforce."""

    gone: Sequence[str]

    @property
    def slow(self) -> bool:
        """Whether finding out what may come next takes so long that it is better done beside the steps."""

    def copy(self) -> "Constraint":
        """Return a copy in the same state, for another text."""

    def prepare(self) -> None:
        """Compute which tokens may come next, for `mask`. May be called by any thread."""

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that may not come next to -inf."""

    def accept(self, token: int) -> None:
        """Advance the constraint by the chosen token."""


class _Matcher:
    """One text on its way through a grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, size: int, gone: Sequence[str] = ()) -> None:
        self._matcher, self._size, self.gone = matcher, size, gone
        self._seconds, self._last = _SECONDS, 0.0
        self._prepared = False
        self._bits = np.zeros(-(-size // 32), np.int32)

    def copy(self) -> "_Matcher":
        copy = _Matcher(self._matcher.deep_copy(), self._size, self.gone)
        copy._seconds, copy._last, copy._prepared = self._seconds, self._last, self._prepared
        copy._bits[:] = self._bits
        return copy

    @property
    def slow(self) -> bool:
        return self._last > _SLOW_SECONDS

    def prepare(self) -> None:
        if self._prepared:
            return
        began = time.thread_time()
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._last, self._prepared = time.thread_time() - began, True
        self._seconds -= self._last

    def mask(self, logits: NDArray[np.float32]) -> None:
        self.prepare()
        self._check()
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: len(logits)]
        logits[: len(allowed)][allowed == 0] = -np.inf
        logits[len(allowed) :] = -np.inf

    def accept(self, token: int) -> None:
        began = time.thread_time()
        self._matcher.consume_token(token)
        self._prepared = False
        self._seconds += _SECONDS_A_TOKEN - (time.thread_time() - began)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError("the grammar cannot go on: {get_error}", get_error=_line(self._matcher.get_error()))
        if self._seconds < 0:
            raise ConstraintError("the grammar is too ambiguous: finding out what may come next takes too long")

    def check_beginning(self) -> None:
        """Raise ConstraintError if no token is allowed first."""
        self.mask(np.zeros(self._size, np.float32))
        if not self._bits.any():
            raise ConstraintError("nothing can match it")


class Grammars:
    """Makes constraints for a tokenizer; the vocabulary is prepared on first use, or before by `prepare`."""

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

    def prepare(self) -> None:
        """Prepare the vocabulary: a second for 128k tokens, in part of which no other thread of Python goes on."""
        _ = self._vocabulary, self._with_marks

    def json(self) -> Constraint:
        """Return a constraint that accepts any JSON object."""
        return self.json_schema({"type": "object"})

    def json_schema(self, schema: Mapping[str, Any]) -> Constraint:
        """Compile a JSON schema. Keywords that only narrow values and are not supported are ignored.

        Raises SeventyError for a schema that cannot be used.
        """
        try:
            return self._json_schema(schema, ())
        except SeventyError:
            wider, gone = relaxed(schema)
            if not gone:
                raise
            return self._json_schema(wider, gone)

    def _json_schema(self, schema: Mapping[str, Any], gone: Sequence[str]) -> Constraint:
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(schema), overrides={"whitespace_pattern": WHITESPACE}
            )
        except ValueError as error:
            raise ConstraintError("the JSON schema cannot be used: {error}", error=_line(str(error))) from None
        return self._constraint(grammar, "the JSON schema", self._vocabulary, gone)

    def regex(self, pattern: str) -> Constraint:
        """Compile a regular expression (Rust's syntax) that the whole answer must match."""
        grammar = llguidance.LLMatcher.grammar_from_regex(pattern)
        return self._constraint(grammar, "the regular expression", self._vocabulary)

    def lark(self, text: str) -> Constraint:
        """Compile a context-free grammar in llguidance's syntax, or in llama.cpp's (GBNF: `root ::= ...`)."""
        if "::=" in text:
            try:
                text = llguidance.gbnf_to_lark.any_to_lark(text)
            except Exception as error:
                raise ConstraintError("the grammar cannot be used: {error}", error=_line(str(error))) from None
        return self._constraint(llguidance.LLMatcher.grammar_from_lark(text), "the grammar", self._vocabulary)

    def calls(
        self, grammar: Callable[[Sequence[Tool], bool], str], tools: Sequence[Tool], parallel: bool
    ) -> Constraint:
        """Compile a style's grammar for calls of these tools, in which control tokens that mark calls are text.

        Schemas are relaxed as those of answers are, and closed: only arguments that they name are allowed. Raises
        SeventyError with the tool's name for a schema that cannot be used.
        """
        tools = [{**tool, "function": {**tool["function"], "parameters": closed(parameters(tool))}} for tool in tools]
        try:
            # References that lead back to themselves show where an answer cannot go on, not at its beginning.
            self._check([tool for tool in tools if '"$ref"' in json.dumps(tool)])
            return self._calls(grammar(tools, parallel), ())
        except SeventyError as error:
            wider, gone = list[Tool](), list[str]()
            for tool in tools:
                schema, places = relaxed(parameters(tool), f"tools.{tool['function']['name']}")
                wider.append({**tool, "function": {**tool["function"], "parameters": schema}})
                gone += places
            self._check(wider)
            if not gone:
                raise error
            return self._calls(grammar(wider, parallel), gone)

    def _check(self, tools: Sequence[Tool]) -> None:
        for tool in tools:
            try:
                self._json_schema(parameters(tool), ())
            except SeventyError as error:
                raise ConstraintError("tool {tool!r}: {error}", tool=tool["function"]["name"], error=error) from None

    def _calls(self, lark: str, gone: Sequence[str]) -> Constraint:
        return self._constraint(llguidance.LLMatcher.grammar_from_lark(lark), "the tools", self._with_marks, gone)

    def _constraint(
        self, grammar: str, what: str, vocabulary: llguidance.LLTokenizer, gone: Sequence[str] = ()
    ) -> Constraint:
        limits = llguidance.LLParserLimits(max_items_in_row=_MAX_ITEMS_IN_ROW, step_max_items=_MAX_ITEMS_OF_STEP)
        matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise ConstraintError("{what} cannot be used: {get_error}", what=what, get_error=_line(matcher.get_error()))
        constraint = _Matcher(matcher, self._tokenizer.vocab_size, gone)
        try:
            # Its answers begin with the mask that this makes.
            constraint.check_beginning()
        except ConstraintError as error:
            raise ConstraintError("{what} cannot be used: {error}", what=what, error=error) from None
        return constraint


class _Wrapped:
    """The vocabulary as llguidance asks for it; `marks`: control tokens that show in answers are text."""

    def __init__(self, tokenizer: Tokenizer, marks: bool) -> None:
        ids = range(tokenizer.vocab_size)
        shown = [
            b"" if tokenizer.is_control(id) and not marks else tokenizer.token_bytes(id, skip_special=True)
            for id in ids
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
    """The first lines of what llguidance says: its insides, and the grammar itself, come after them."""
    if text.startswith("NoExtensionBias") or not text.strip():
        return t("nothing can match it")
    if "Current row has" in text or "too complex" in text:
        return t("there are too many ways to go on; make it less ambiguous")
    # Where an expression is wrong stands in lines of its own.
    return " ".join(text.split("<state>")[0].split())[:200]
