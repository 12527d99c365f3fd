"""What is asked of the scheduler, and the events that come back."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seventy.engine.sampler import Sampling
from seventy.errors import SeventyError
from seventy.text.grammar import Constraint


class QueueFull(SeventyError):
    """Too many requests wait already; `retry_after` is a guess in seconds of when another try is worth it."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLong(SeventyError):
    """The prompt, of so many tokens at least, can never fit the context."""

    def __init__(self, message: str, prompt_tokens: int = 0, context: int = 0) -> None:
        super().__init__(message)
        self.prompt_tokens, self.context = prompt_tokens, context


@dataclass(frozen=True, slots=True)
class Logprob:
    """A written token, its log probability, and the likeliest in its place: before penalties and limits, or those that
    tokens are drawn with (Request.sampled_probs)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of reading a prompt, in tokens; `cached` of them cost nothing.

    `queued` is the number of requests ahead of this one before it begins.
    """

    done: int
    total: int
    cached: int
    seconds_left: float | None
    queued: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text to be shown, and the tokens written since the last piece, whose text may come later."""

    text: str
    tokens: tuple[int, ...]
    scores: tuple[Logprob, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a request; times in seconds, of which those in the queue come first.

    `reason` is `stop` (the model's end of text, or a stop string), `length` or `cancelled`; for `length`, `cut_by` says
    what was too short: max_tokens, context or max_seconds. `end_token` is the end of text that the model wrote, `stop`
    the stop string that came, if one of them ended the text. `decode_bytes` is what was read of weights and caches in
    the steps that wrote the answer, by all texts in them. `drafted_tokens` were guessed, `accepted_tokens` of them
    right, and without them the answer would have taken `gained_seconds` longer (engine/drafts.py).
    """

    reason: str
    prompt_tokens: int
    cached_tokens: int
    written_tokens: int
    queued_seconds: float
    prompt_seconds: float
    decode_seconds: float
    cut_by: str = ""
    end_token: int | None = None
    decode_bytes: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    stop: str = ""
    gained_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """The request could not be answered; the message is for the user, by whose fault it was where `by_request`."""

    message: str
    by_request: bool = False


@dataclass(frozen=True, slots=True)
class Embedded:
    """The states of a text made one, [hidden]; or without pooling some of them, [tokens, hidden], in their order."""

    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Logits:
    """Logits of some tokens of a text from its `first` on, [rows, vocabulary]; a later event may say them again."""

    first: int
    rows: NDArray[np.float32]


Event = Progress | TextDelta | Embedded | Logits | Finished | Failed


@dataclass(slots=True, eq=False)
class Request:
    """A text to be written after `ids`. `deliver` is called with the events of each step by the engine's thread.

    Without `max_tokens` the answer may fill the context; more than there is room for is no error, the answer then ends
    for want of it. `max_seconds` count from when the request leaves the queue. With `pooling` nothing is written: the
    states of the ids are wanted, their `mean`, the `last` or all (`none`); with `logits`, the logits of so many of the
    last ids. Time in queues counts from `since` (time.monotonic), when it was made. With `sampled_probs`, probabilities
    are those that tokens are drawn with, after penalties, limits and temperature.
    """

    ids: Sequence[int]
    max_tokens: int | None
    deliver: Callable[[Event], None]
    sampling: Sampling = field(default_factory=Sampling)
    stops: Sequence[str] = ()
    user: str = ""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    sampled_probs: bool = False
    ignore_eos: bool = False
    constraint: Constraint | None = None
    max_seconds: float | None = None
    pooling: str | None = None
    logits: int = 0
    cancelled: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def writes(self) -> bool:
        """Whether an answer is wanted."""
        return self.pooling is None and not self.logits
