"""The public API: a model answers."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seventy.engine.model import MAX_OUTPUTS, MAX_ROWS, Aborted, Model, Progress, Rows
from seventy.engine.sampler import Sampler, Sampling, TopK
from seventy.errors import SeventyError
from seventy.text.stops import StopStrings
from seventy.text.template import ChatTemplate
from seventy.text.tokenizer import StreamDecoder, Tokenizer

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Timings:
    """Where the time of an answer went. `cached_tokens` of the prompt were still in the cache and cost nothing.

    The first token belongs to the prompt; `decode_seconds` are those of the others. `decode_bytes` is the memory
    they read: every weight once a token, and the keys and values of what stood before.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    generated_tokens: int = 0
    decode_seconds: float = 0.0
    decode_bytes: int = 0

    @property
    def prompt_tokens_per_second(self) -> float:
        return _rate(self.prompt_tokens - self.cached_tokens, self.prompt_seconds)

    @property
    def decode_tokens_per_second(self) -> float:
        return _rate(self.generated_tokens - 1, self.decode_seconds)

    @property
    def decode_gbs(self) -> float:
        """Memory read while decoding, GB/s (10^9)."""
        return _rate(self.decode_bytes, self.decode_seconds) / 1e9


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 and amount > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer. `finish_reason` is `stop` (its end or a stop string), `length` (max_tokens or the context is full)
    or `aborted` (Ctrl-C, `Stream.close`). `token_ids` are all tokens written, also those of a stop string."""

    text: str
    token_ids: list[int]
    finish_reason: str
    timings: Timings


@dataclass(slots=True)
class Stream:
    """The pieces of an answer as they come; `completion` is there when they have come."""

    _pieces: Iterator[str]
    completion: Completion | None = field(default=None)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """Ends the answer early."""
        self._pieces.close()  # type: ignore[attr-defined]


class LLM:
    """A GGUF model, loaded and ready.

    `threads` are by default the physical cores, `context` is the most tokens a prompt and its answer may have
    (no more than the model was made for; without it, what memory allows, up to 32768), `sequences` how many texts
    share the cache, which has room for one of that length at least and for all where memory allows.
    `isa` is an ISA level below the CPU's best; `kv` says how keys and values are kept: `f16`, or `q8_0` in little more
    than half the memory; `progress(what, done, total)` is told how loading goes. Raises
    SeventyError for a file that cannot be used or does not fit. Not for several threads at once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        context: int | None = None,
        *,
        sequences: int = 1,
        isa: str | None = None,
        kv: str = "f16",
        progress: Progress | None = None,
    ) -> None:
        self.model = Model(path, threads, context, sequences, isa, kv, progress)
        self._template: ChatTemplate | None = None
        self.template_source = ""
        try:
            metadata = self.model.metadata
            self.tokenizer = Tokenizer.from_metadata(metadata)
            source = metadata.get("tokenizer.chat_template")
            if isinstance(source, str):
                bos, eos = (self._special(id) for id in (self.tokenizer.bos_id, self.tokenizer.eos_id))
                self._template = ChatTemplate(source, bos, eos)
                self.template_source = source
            self.top_k = TopK(self.model.library)
            self._sequence = self.model.new_sequence()
        except BaseException:
            self.close()
            raise

    def _special(self, id: int | None) -> str:
        return "" if id is None else self.tokenizer.token_text(id)

    @property
    def context(self) -> int:
        return self.model.context

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Token ids of a text, without a beginning-of-text token; `special` reads special tokens in it as such."""
        return self.tokenizer.encode(text, special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids; special tokens have none."""
        return self.tokenizer.decode(ids)

    def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """The prompt that the model's chat template makes of messages (`role` and `content`)."""
        if self._template is None:
            raise SeventyError("this model has no chat template; give it the prompt as it is (--raw)")
        return self._template.render(messages, **variables)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The tokens of a text (its special tokens read as such), of messages, or the ids themselves."""
        if not isinstance(prompt, str):
            messages = [item for item in prompt if isinstance(item, Mapping)]
            if not messages:
                return self._checked([int(id) for id in prompt if not isinstance(id, Mapping)])
            prompt = self.render(messages)
        return self._begun(self.tokenizer.encode(prompt, special=True))

    def infill_ids(self, before: str, after: str) -> list[int]:
        """The tokens that ask for what stands between two texts; special tokens in them are text."""
        return self._begun(self.tokenizer.encode_infill(before, after))

    def _begun(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_id
        # A template may have written the beginning-of-text token itself.
        if self.tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return self._checked(ids)

    def _checked(self, ids: list[int]) -> list[int]:
        size = self.model.config.vocabulary
        if not ids:
            raise SeventyError("the prompt is empty; give it at least one token")
        if wrong := next((id for id in ids if not 0 <= id < size), None):
            raise SeventyError(f"token id {wrong} is not in the vocabulary of {size}; give ids from 0 on, below it")
        return ids

    def generate(self, prompt: Prompt, max_tokens: int | None = None, **options: Any) -> Completion:
        """The whole answer to a prompt; options as for `stream`."""
        stream = self.stream(prompt, max_tokens, **options)
        for _ in stream:
            pass
        assert stream.completion is not None
        return stream.completion

    def chat(self, messages: Sequence[Mapping[str, Any]], max_tokens: int | None = None, **options: Any) -> Completion:
        """The answer to a conversation (`role` and `content` of each message); options as for `stream`."""
        return self.generate(messages, max_tokens, **options)

    def stream(
        self,
        prompt: Prompt,
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        ignore_eos: bool = False,
        progress: Progress | None = None,
        **sampling: Any,
    ) -> Stream:
        """The answer in pieces of text, never within a character.

        `sampling` are the fields of engine.sampler.Sampling (temperature, top_k, seed ...); greedy by default.
        Without `max_tokens` the answer may fill the context. What the prompt has in common with an earlier one is
        not read again while the cache has room for it. Raises SeventyError when prompt and max_tokens do not fit the
        context.
        """
        try:
            settings = Sampling(**sampling)
        except TypeError as error:
            raise SeventyError(f"unknown sampling option: {error}") from None
        ids = self.prompt_ids(prompt)
        room = self.context - len(ids)
        if max_tokens is not None and max_tokens < 1:
            raise SeventyError(f"max_tokens must be at least 1, not {max_tokens}")
        if room < (max_tokens or 1):
            raise SeventyError(
                f"the prompt has {len(ids)} tokens and {max_tokens or 1} more are to be written, but the context is "
                f"{self.context}; shorten the prompt, ask for fewer tokens or take a larger context"
            )
        stops = StopStrings([stop] if isinstance(stop, str) else stop)
        result = Stream(iter(()))
        result._pieces = self._answer(result, ids, max_tokens or room, settings, stops, ignore_eos, progress)
        return result

    def _answer(
        self,
        result: Stream,
        ids: list[int],
        max_tokens: int,
        settings: Sampling,
        stops: StopStrings,
        ignore_eos: bool,
        progress: Progress | None,
    ) -> Iterator[str]:
        decoder = StreamDecoder(self.tokenizer)
        timings = Timings(prompt_tokens=len(ids))
        text: list[str] = []
        written: list[int] = []
        reason, stopped = "aborted", False
        try:
            with self.model.interruptible():
                for token in self._tokens(ids, max_tokens, settings, timings, progress):
                    written.append(token)
                    if token in self.tokenizer.end_ids and not ignore_eos:
                        reason = "stop"
                        break
                    piece, stopped = stops.push(decoder.push(token))
                    if piece:
                        text.append(piece)
                        yield piece
                    if stopped:
                        break
                else:
                    reason = "length"
            if not stopped:
                piece, stopped = stops.push(decoder.flush())
                if piece := piece + stops.flush():
                    text.append(piece)
                    yield piece
            if stopped:
                reason = "stop"
        except Aborted:
            pass
        finally:
            result.completion = Completion("".join(text), written, reason, timings)

    def _tokens(
        self, ids: list[int], max_tokens: int, settings: Sampling, timings: Timings, progress: Progress | None
    ) -> Iterator[int]:
        """Reads the prompt, then picks a token and reads it, and so on."""
        sampler = Sampler(settings, self.top_k, ids)
        start = time.perf_counter()
        logits = self._read(ids, timings, progress)
        while True:
            token = sampler.pick(logits[0])
            sampler.accept(token)
            timings.generated_tokens += 1
            now = time.perf_counter()
            if timings.generated_tokens == 1:
                timings.prompt_seconds, start = now - start, now
            timings.decode_seconds = now - start
            yield token
            if timings.generated_tokens == max_tokens:
                return
            timings.decode_bytes += self.model.read_bytes(self._sequence.length)
            logits = self._step([token])

    def _read(self, ids: list[int], timings: Timings, progress: Progress | None) -> NDArray[np.float32]:
        """Reads a prompt, but for what the cache has of it; the last row's logits [1, vocabulary]."""
        # The last token is always read: its logits are wanted.
        timings.cached_tokens = common = self._sequence.open(ids[:-1])
        for first in range(common, len(ids), MAX_ROWS):
            logits = self._step(ids[first : first + MAX_ROWS], int(first + MAX_ROWS >= len(ids)))
            if progress:
                progress("reading the prompt", min(first + MAX_ROWS, len(ids)) - common, len(ids) - common)
        return logits

    def _step(self, tokens: Sequence[int], outputs: int = 1) -> NDArray[np.float32]:
        """Reads tokens after those before; the logits [outputs, vocabulary] of the last ones."""
        logits = self.model.step([Rows(self._sequence, tokens, outputs)])
        return logits

    def logits(self, ids: Sequence[int], last_only: bool = False) -> NDArray[np.float32]:
        """What the model expects after each token (or the last): float32 [n or 1, vocabulary]."""
        ids = self._checked([int(id) for id in ids])
        if len(ids) > self.context:
            raise SeventyError(f"{len(ids)} tokens do not fit the context of {self.context}; give fewer")
        self._sequence.close()
        self.model.cache.forget()
        if last_only:
            return self._read(ids, Timings(), None).copy()
        parts = []
        with self.model.interruptible():
            for first in range(0, len(ids), MAX_OUTPUTS):
                tokens = ids[first : first + MAX_OUTPUTS]
                parts.append(self._step(tokens, len(tokens)).copy())
        return np.concatenate(parts)

    def close(self) -> None:
        """Ends threads and helpers and frees the memory."""
        if self._template:
            self._template.close()
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
