"""Texts that a model makes vectors of: those of one request go through the scheduler a few at a time.

So the queue has room for others however many texts a request has, and the model can be unloaded between them.
"""

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
from seventy.server.streams import while_connected

_AT_ONCE = 16
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
    use: Callable[[], AbstractAsyncContextManager[Backend]],
    texts: Sequence[T],
    read: Callable[[Backend, T], Awaitable[tuple[list[int], str]]],
) -> Vectors:
    """Return the vectors of at least one text. `read` gives a text's token ids, and how its states become one.

    `use` gives the model for the time of one submission. Raises ApiError where a text cannot be taken.
    """
    answers: list[Answer] = []

    async def work() -> Vectors:
        running: deque[Answer] = deque()
        found: list[Vector] = []
        for text in texts:
            if len(running) >= _AT_ONCE:
                found.append(await _collect(running.popleft()))
            async with use() as backend:
                ids, pooling = await read(backend, text)
                while True:
                    answer = backend.answer(writes=False)
                    try:
                        answer.submit(ids=ids, max_tokens=None, user=request.state.user, pooling=pooling)
                        break
                    except ApiError as error:
                        # The queue is full: of others, or of these.
                        if error.status != 429 or not running:
                            raise
                    found.append(await _collect(running.popleft()))
            answers.append(answer)
            running.append(answer)
        found += [await _collect(answer) for answer in running]
        return Vectors(backend, found)

    return await while_connected(request, answers, work())


async def _collect(answer: Answer) -> Vector:
    rows = [item.vector async for item in answer.events() if isinstance(item, Embedded)]
    if answer.finished is None or not rows:
        raise ApiError(499, "the client has gone")
    return Vector(rows[0] if rows[0].ndim == 1 else np.concatenate(rows), answer.finished.prompt_tokens)
