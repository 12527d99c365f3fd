"""Conversations that outgrew their context: the oldest turns are left out, so that the rest can be answered."""

from collections.abc import Sequence
from dataclasses import dataclass

from seventy.engine.request import TooLong
from seventy.server.backend import Backend
from seventy.server.chat import prepare
from seventy.server.schemas import ChatBody, Message

# An answer gets this many tokens of the context at least, or a quarter of it.
_ANSWER_TOKENS = 1024
# What a chat template may write around a message; below this no conversation can be too long.
_FRAME_BYTES = 256
_MANY = 1 << 62


@dataclass(frozen=True, slots=True)
class Fitted:
    """A request whose conversation fits; `left_out` are its oldest messages that do not, system messages not counted.

    `tokens` are those of the prompt where they had to be counted, `context` those that prompt and answer may have.
    """

    body: ChatBody
    left_out: int
    tokens: int | None
    context: int


def fit(backend: Backend, body: ChatBody) -> Fitted:
    """Leave out the oldest turns of a conversation that leaves no room for an answer. Takes time.

    What is left out then leaves half of the context free, so that the next turns leave out the same and find the rest
    in the cache. The last question always stays; where it alone is too long, the request fails as any other.
    """
    context = backend.llm.context
    if _largest(body.messages) <= context // 2:
        return Fitted(body, 0, None, context)
    reserve = min(body.max_completion_tokens or body.max_tokens or _ANSWER_TOKENS, _ANSWER_TOKENS, context // 4)
    whole = _tokens(backend, body)
    if whole + reserve <= context:
        return Fitted(body, 0, whole, context)
    first = next((at for at, message in enumerate(body.messages) if message.role not in ("system", "developer")), 0)
    starts = [at for at, message in enumerate(body.messages) if at > first and message.role == "user"]
    if not starts:
        return Fitted(body, 0, None, context)
    # The earliest start that is short enough; the last one in any case.
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if _tokens(backend, _from(body, first, starts[middle])) <= context // 2:
            high = middle
        else:
            low = middle + 1
    shorter = _from(body, first, starts[low])
    tokens = _tokens(backend, shorter)
    if tokens >= context:
        # The last question is too long by itself: it fails, and the conversation stays as it was.
        return Fitted(body, 0, None, context)
    return Fitted(shorter, starts[low] - first, tokens, context)


def _largest(messages: Sequence[Message]) -> int:
    """More tokens than these messages can have: a token is a byte at least."""
    return sum(_FRAME_BYTES + len(str(message.content).encode("utf-8", "replace")) for message in messages)


def _tokens(backend: Backend, body: ChatBody) -> int:
    """How many tokens the prompt has; _MANY where they are not even counted."""
    try:
        return len(prepare(backend, body).ids)
    except TooLong:
        return _MANY


def _from(body: ChatBody, first: int, start: int) -> ChatBody:
    """The request without the messages from `first` up to `start`."""
    return body.model_copy(update={"messages": [*body.messages[:first], *body.messages[start:]]})
