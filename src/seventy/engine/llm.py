"""The public API: a model answers. Every text is written by the scheduler's thread; this is its client."""

import contextlib
import logging
import os
import queue
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seventy.cache.store import DiskCache
from seventy.engine import draft_choice
from seventy.engine.assistant import Assistant, is_assistant
from seventy.engine.draft_model import DraftModel, Vocabularies, compare
from seventy.engine.drafts import Drafts
from seventy.engine.model import Model, Progress
from seventy.engine.multi_token import MultiToken
from seventy.engine.ranking import Ranking
from seventy.engine.request import Event, Failed, Finished, Logits, Request, TextDelta, TooLong
from seventy.engine.request import Progress as PromptProgress
from seventy.engine.sampler import Sampling, TopK
from seventy.engine.scheduler import Scheduler
from seventy.errors import SeventyError
from seventy.language import t
from seventy.text.chat import ChatFormat
from seventy.text.tokenizer import Tokenizer

_log = logging.getLogger("seventy.engine")
# A step of others' texts too, which no cancelling stops, ends within this time on most machines.
_CANCEL_SECONDS = 2.0

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Timings:
    """The times of an answer. `cached_tokens` of the prompt were found in the cache and cost nothing.

    The first token counts as part of the prompt; `decode_seconds` is the time of the others. `decode_bytes` is the
    memory read for them: every weight once per step, and the keys and values of earlier positions. A step writes one
    token plus those `accepted_tokens`, of `drafted_tokens`, that were drafted correctly. Without drafts the answer
    would have taken `gained_seconds` longer.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    generated_tokens: int = 0
    decode_seconds: float = 0.0
    decode_bytes: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    gained_seconds: float = 0.0

    @property
    def draft_speedup(self) -> float:
        """The speedup by drafts, compared to the measured times of steps without any."""
        return max(0.0, 1 + self.gained_seconds / self.decode_seconds) if self.decode_seconds > 0 else 1.0

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
    """An answer.

    `finish_reason` is `stop` (its end or a stop string), `length` or `aborted` (Ctrl-C, `Stream.close`).

    For `length`, `cut_by` says what was too short: max_tokens or context. `token_ids` are all tokens written, those of
    a stop string and of the end too.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    timings: Timings
    cut_by: str = ""


@dataclass(slots=True)
class Stream:
    """The pieces of an answer as they come; `completion` is there when they have come."""

    _pieces: Iterator[str]
    completion: Completion | None = field(default=None)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """End the answer early."""
        self._pieces.close()  # type: ignore[attr-defined]


class LLM:
    """A GGUF model, loaded and ready.

    `threads` are by default the physical cores, `context` is the most tokens a prompt and its answer may have
    (no more than the model was made for; without it, what memory allows, up to 32768), `sequences` how many texts
    share the cache, which has room for one of that length at least and for all where memory allows: all of it, or
    `memory` bytes. `isa` is an ISA level below the CPU's best; `kv` says how keys and values are kept: `f16`, or `q8_0`
    in little more than half the memory; `progress(what, done, total)` is told how loading goes. Up to `parallel` texts
    are written at once, by any threads; up to `queue` wait. Answers may take `slowdown` times longer while a prompt is
    read beside them. `chat_template` is a template, or the name of one, to take instead of the file's. `draft` says
    whence tokens are guessed so that a step may write several, which changes no text: `off`; `lookup`, what stood in
    this text or others before; `mtp`, the file's own block of multi-token prediction, beside lookup; the file or name
    of a small model of the same vocabulary, or of an assistant that was made for this one, beside lookup; or `auto`,
    which is lookup and that block where the file has one, else, for a model of 4 GB and more, a small one that is on
    this disk and fits. Guesses are made only while they pay. `disk` is a folder and how much it may hold, for what the
    cache has no room for and for the next run.
    `ranking` says how a reranker is asked; with `ranks`, any model that can say yes or no is one.
    Raises SeventyError for a file that cannot be used or does not fit.
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
        parallel: int = 4,
        queue: int = 64,
        slowdown: float = 2.0,
        chat_template: str | None = None,
        memory: int | None = None,
        draft: str = "auto",
        disk: DiskCache | None = None,
        ranks: bool = False,
    ) -> None:
        self._scheduler: Scheduler | None = None
        self._chat: ChatFormat | None = None
        self.draft_model: Model | None = None
        small = draft_choice.named(draft)
        mtp = draft_choice.multi_token(path, draft, context, sequences, kv, memory)
        if draft == "auto" and not mtp:
            small = draft_choice.found(path, context, sequences, kv, memory)
        self.draft_path, assistant = small, small if small and is_assistant(small) else None
        vocabularies = compare(path, small) if small and not assistant else None
        left = None
        if vocabularies and small:
            memory, left = draft_choice.room_beside(path, small, context, sequences, kv, memory)
        self.model = Model(path, threads, context, sequences, isa, kv, progress, memory=memory, disk=disk,
                           mtp=mtp, assistant=assistant)  # fmt: skip
        try:
            drafts = Drafts(lookup=draft != "off")
            if mtp or assistant:
                drafts.model = block = Assistant(self.model) if assistant else MultiToken(self.model)
                block.warm()
            if small and vocabularies:
                load = partial(Model, small, threads, self.model.context, parallel, isa, kv, progress, memory=left)
                drafts.model = self._draft(load, vocabularies, named=draft != "auto")
            self.tokenizer = Tokenizer.from_metadata(self.model.metadata)
            self._chat = ChatFormat(self.model.metadata, self.tokenizer, chat_template)
            hidden = self.model.config.hidden
            self.ranking = Ranking.find(path, ranks, hidden, self.tokenizer, self._chat)
            self.top_k = TopK(self.model.library)
            self._scheduler = Scheduler(self.model, self.tokenizer, self.top_k, parallel, queue, slowdown, drafts)
        except BaseException:
            self.close()
            raise

    def _draft(self, load: Callable[[], Model], vocabularies: Vocabularies, named: bool) -> DraftModel | None:
        """Load the draft model; go on without one that nobody named and that cannot be loaded."""
        try:
            self.draft_model = load()
            drafts = DraftModel(
                self.draft_model, vocabularies, self.draft_model.read_bytes(0) / self.model.read_bytes(0)
            )
            drafts.warm()
        except (SeventyError, OSError) as error:
            if named:
                raise
            _log.warning("going on without the draft model %s: %s", self.draft_path, error)
            if self.draft_model:
                self.draft_model.close()
            self.draft_model = self.draft_path = None
            return None
        return drafts

    @property
    def context(self) -> int:
        return self.model.context

    @property
    def chat_format(self) -> ChatFormat:
        """The chat template of this model and its conventions."""
        assert self._chat is not None, "the model is closed"
        return self._chat

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler that writes all texts; custom requests can be submitted to it."""
        assert self._scheduler is not None, "the model is closed"
        return self._scheduler

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Return a text's token ids without a beginning-of-text token; `special` reads special tokens as such."""
        return self.tokenizer.encode(text, special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Convert token ids to text; special tokens are left out."""
        return self.tokenizer.decode(ids)

    def render(self, messages: Sequence[Mapping[str, Any]], /, **variables: Any) -> str:
        """Render messages (`role` and `content`) to a prompt with the chat template, adapted to what it accepts."""
        return self.chat_format.prompt(messages, variables=variables).text

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a text (special tokens in it are recognised), of messages, or the given ids."""
        if not isinstance(prompt, str):
            messages = [item for item in prompt if isinstance(item, Mapping)]
            if not messages:
                return self._checked([int(id) for id in prompt if not isinstance(id, Mapping)])
            prompt = self.render(messages)
        self.check_length(prompt)
        return self._begun(self.tokenizer.encode(prompt, special=True))

    def check_length(self, *texts: str) -> None:
        """Raise TooLong for texts that can never fit together, without reading them: that takes seconds a megabyte."""
        least = 0
        for text in texts:
            least += self.tokenizer.fewest(text, self.context - least)
            self.check_tokens(least)

    def check_tokens(self, least: int) -> None:
        """Raise TooLong if a prompt of at least `least` tokens cannot fit the context."""
        if least >= self.context:
            raise TooLong(
                t(
                    "the prompt has {least} tokens at least, and the context of {context} has no room for an answer "
                    "after it; shorten the prompt or take a larger context",
                    least=least, context=self.context,
                ),
                least, self.context,
            )  # fmt: skip

    def infill_ids(self, before: str, after: str, files: Sequence[tuple[str, str]] = ()) -> list[int]:
        """Return the token ids that ask the model to fill in between two texts; special tokens in them are plain text.

        `files` are names and texts of other files to show first.
        """
        self.check_length(before, after, *(text for _, text in files))
        return self._begun(self.tokenizer.encode_infill(before, after, files))

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
            raise SeventyError(
                "token id {wrong} is not in the vocabulary of {size}; give ids from 0 on, below it",
                wrong=wrong, size=size,
            )
        return ids

    def generate(self, prompt: Prompt, max_tokens: int | None = None, **options: Any) -> Completion:
        """Complete a prompt and return the whole answer. The options are those of `stream`."""
        stream = self.stream(prompt, max_tokens, **options)
        for _ in stream:
            pass
        assert stream.completion is not None
        return stream.completion

    def chat(self, messages: Sequence[Mapping[str, Any]], max_tokens: int | None = None, **options: Any) -> Completion:
        """Answer a conversation (`role` and `content` of each message). The options are those of `stream`."""
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
        """Complete a prompt and yield the answer in pieces of text, never splitting a character.

        `sampling` are the fields of engine.sampler.Sampling (temperature, top_k, seed ...); the default is greedy.
        Without `max_tokens` the answer may fill the context; a larger `max_tokens` is no error. A prefix that the
        prompt shares with an earlier one is not read again while it is in the cache. Raises SeventyError if the prompt
        does not fit the context.
        """
        try:
            settings = Sampling(**sampling)
        except TypeError as error:
            raise SeventyError("unknown sampling option: {error}", error=error) from None
        ids = self.prompt_ids(prompt)
        if max_tokens is not None and max_tokens < 1:
            raise SeventyError("max_tokens must be at least 1, not {max_tokens}", max_tokens=max_tokens)
        if len(ids) >= self.context:
            raise TooLong(
                t(
                    "the prompt has {ids_count} tokens, and the context of {context} has no room for an answer after "
                    "it; shorten the prompt or take a larger context",
                    ids_count=len(ids), context=self.context,
                ),
                len(ids), self.context,
            )  # fmt: skip
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        stops = [stop] if isinstance(stop, str) else stop
        request = Request(ids, max_tokens, events.put, settings, stops, ignore_eos=ignore_eos)
        result = Stream(iter(()))
        result._pieces = self._answer(result, request, events, progress)
        return result

    def _answer(
        self, result: Stream, request: Request, events: "queue.SimpleQueue[Event]", progress: Progress | None
    ) -> Iterator[str]:
        text: list[str] = []
        written: list[int] = []
        finished: Finished | None = None
        source = self._events(request, events)
        try:
            for event in source:
                if isinstance(event, PromptProgress) and progress:
                    progress(t("reading the prompt"), event.done - event.cached, event.total - event.cached)
                elif isinstance(event, TextDelta):
                    written += event.tokens
                    if event.text:
                        text.append(event.text)
                        yield event.text
                elif isinstance(event, Finished):
                    finished = event
        except (GeneratorExit, KeyboardInterrupt):
            source.close()
            finished = _end_of_cancelled(events)
            raise
        finally:
            result.completion = _completion("".join(text), written, finished, len(request.ids))

    def _events(self, request: Request, events: "queue.SimpleQueue[Event]") -> Generator[Event]:
        """Submit a request and yield its events up to the last; leaving early, also by Ctrl-C, cancels it.

        Raises SeventyError where it failed.
        """
        self.scheduler.submit(request)
        ended = False
        try:
            while not ended:
                event = events.get()
                ended = isinstance(event, Finished | Failed)
                if isinstance(event, Failed):
                    raise SeventyError(event.message)
                yield event
        finally:
            if not ended and self._scheduler is not None:
                self._scheduler.cancel(request)

    def logits(self, ids: Sequence[int], last_only: bool = False) -> NDArray[np.float32]:
        """Return what the model expects after each token (or the last): float32 [n or 1, vocabulary].

        Every token is read anew, whatever the cache holds.
        """
        ids = self._checked([int(id) for id in ids])
        if len(ids) > self.context:
            raise SeventyError(
                "{ids_count} tokens do not fit the context of {context}; give fewer",
                ids_count=len(ids), context=self.context,
            )
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        wanted = 1 if last_only else len(ids)
        found = np.empty((wanted, self.model.config.vocabulary), np.float32)
        for event in self._events(Request(ids, None, events.put, logits=wanted), events):
            if isinstance(event, Logits):
                at = event.first - (len(ids) - wanted)
                found[at : at + len(event.rows)] = event.rows
        return found

    def close(self) -> None:
        """End every text, the threads and helpers, and free the memory; twice is once."""
        if self._scheduler is not None:
            self._scheduler.close()
            self._scheduler = None
        if self._chat is not None:
            self._chat.close()
        if self.draft_model is not None:
            self.draft_model.close()
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _end_of_cancelled(events: "queue.SimpleQueue[Event]") -> Finished | None:
    """Return the end of a cancelled request, which knows how long the answer took; None if none comes soon."""
    with contextlib.suppress(queue.Empty):
        while True:
            if isinstance(event := events.get(timeout=_CANCEL_SECONDS), Finished):
                # It may have ended by itself meanwhile; what was handed on is no whole answer.
                return replace(event, reason="cancelled", cut_by="", end_token=None)
    return None


def _completion(text: str, written: list[int], finished: Finished | None, prompt_tokens: int) -> Completion:
    """The answer as far as it came; without its end it was aborted."""
    if finished is None:
        return Completion(text, written, "aborted", Timings(prompt_tokens, generated_tokens=len(written)))
    if finished.end_token is not None:
        written = [*written, finished.end_token]
    timings = Timings(
        finished.prompt_tokens, finished.cached_tokens, finished.prompt_seconds, finished.written_tokens,
        finished.decode_seconds, finished.decode_bytes, finished.drafted_tokens, finished.accepted_tokens,
        finished.gained_seconds,
    )  # fmt: skip
    reason = "aborted" if finished.reason == "cancelled" else finished.reason
    return Completion(text, written, reason, timings, finished.cut_by)
