"""Texts that a model makes vectors of: those of one request go through the scheduler a few at a time.

So the queue has room for others however many texts a request has, and the model can be unloaded between them.
"""

import asyncio
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request as HttpRequest

from seventy.engine.request import Embedded
from seventy.server.backend import Answer, Backend
from seventy.server.errors import ApiError
from seventy.server.streams import Cancellable, Client, while_connected

_AT_ONCE = 16
# A full queue is tried again after so long.
_FULL_SECONDS = 0.05
# Of so many tokens the ids are kept between reading and submitting; the others are read again.
_MOST_KEPT = 1 << 22
# Of a vector for each token so many numbers are answered: as JSON half a gigabyte.
_MOST_NUMBERS = 1 << 24
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Vector:
    """What was made of a text: f32 [hidden], or without pooling [tokens, hidden]; and how many tokens it had."""

    values: NDArray[np.float32]
    tokens: int


@dataclass(frozen=True, slots=True)
class Vectors:
    """Those of a request's texts, in their order, and the model that made the last one."""

    backend: Backend
    each: list[Vector]

    @property
    def usage(self) -> dict[str, int]:
        tokens = sum(one.tokens for one in self.each)
        return {"prompt_tokens": tokens, "total_tokens": tokens}


async def vectors(
    request: HttpRequest,
    use: Callable[[str | None], AbstractAsyncContextManager[Backend]],
    texts: Sequence[T],
    read: Callable[[Backend, T], Awaitable[tuple[list[int], str]]],
) -> Vectors:
    """Return the vectors of at least one text. `read` gives a text's token ids, and how its states become one.

    All texts are read before the first is submitted, so that one that cannot be taken costs nothing. `use` gives the
    model for a moment: the one asked for first (None), then that one by its name. Raises ApiError where a text cannot
    be taken.
    """
    client = Client()
    answers: list[Cancellable] = [client]

    async def work() -> Vectors:
        running: deque[Answer] = deque()
        found: list[Vector] = []
        name, prompts = await _read_all(client, use, texts, read)
        for text, known in zip(texts, prompts, strict=True):
            if len(running) >= _AT_ONCE:
                found.append(await _collect(running.popleft()))
            client.check()
            async with use(name) as backend:
                ids, pooling = known or await read(backend, text)
                while (answer := _submitted(backend, request, ids, pooling, bool(running or found))) is None:
                    # The queue is full, of these or of others. Who has begun waits: what was done is not lost.
                    if running:
                        found.append(await _collect(running.popleft()))
                    else:
                        await asyncio.sleep(_FULL_SECONDS)
                    client.check()
            answers.append(answer)
            running.append(answer)
        found += [await _collect(answer) for answer in running]
        return Vectors(backend, found)

    return await while_connected(request, answers, work())


async def _read_all(
    client: Client,
    use: Callable[[str | None], AbstractAsyncContextManager[Backend]],
    texts: Sequence[T],
    read: Callable[[Backend, T], Awaitable[tuple[list[int], str]]],
) -> tuple[str, list[tuple[Sequence[int], str] | None]]:
    """Read every text; return the model's name, and what was read while it is little enough to be kept."""
    name, tokens = None, 0
    prompts: list[tuple[Sequence[int], str] | None] = []
    for text in texts:
        client.check()
        async with use(name) as backend:
            name = backend.name
            ids, pooling = await read(backend, text)
        tokens += len(ids)
        numbers = tokens * backend.llm.model.config.hidden
        if pooling == "none" and numbers > _MOST_NUMBERS:
            raise ApiError(
                400, f"vectors of {tokens} tokens and more, {numbers} numbers, are too many for one answer "
                f"({_MOST_NUMBERS} at most); send fewer texts at once", "too_many_vectors", "input",
            )  # fmt: skip
        prompts.append((array("i", ids), pooling) if tokens <= _MOST_KEPT else None)
    assert name is not None
    return name, prompts


def _submitted(
    backend: Backend, request: HttpRequest, ids: Sequence[int], pooling: str, waits: bool
) -> Answer | None:
    """Submit a text; None where the queue is full and that is to be waited for."""
    answer = backend.answer(writes=False)
    try:
        answer.submit(ids=list(ids), max_tokens=None, user=request.state.user, pooling=pooling)
    except ApiError as error:
        if error.status != 429 or not waits:
            raise
        return None
    return answer


async def _collect(answer: Answer) -> Vector:
    rows = [item.vector async for item in answer.events() if isinstance(item, Embedded)]
    if answer.finished is None or not rows:
        raise ApiError(499, "the client has gone")
    return Vector(rows[0] if rows[0].ndim == 1 else np.concatenate(rows), answer.finished.prompt_tokens)
