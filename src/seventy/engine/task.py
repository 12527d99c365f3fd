"""A request on its way through the scheduler, and what the scheduler counts."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seventy.cache.fetch import Fetch
from seventy.cache.prefix import Sequence as CachedSequence
from seventy.engine.drafts import TextDrafts
from seventy.engine.generation import Generation
from seventy.engine.request import Request


@dataclass(slots=True)
class Statistics:
    """Counters since the start, and what is happening now."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    gained_seconds: float = 0.0
    steps: int = 0
    rows: int = 0
    preempted: int = 0
    cancelled: int = 0
    running: int = 0
    queued: int = 0
    last_batch: int = 0
    decode_tokens_per_second: float = 0.0
    prompt_tokens_per_second: float = 0.0


class Task:
    """A request on its way: the text being written, and the sequence that holds what was read of it so far."""

    def __init__(
        self, request: Request, sequence: CachedSequence, generation: Generation, drafts: TextDrafts
    ) -> None:
        self.request, self.sequence, self.generation, self.drafts = request, sequence, generation, drafts
        self.cached: int | None = None
        self.states: NDArray[np.float64] | None = None
        # Logits whose token cannot be chosen yet: what its constraint allows is being found out beside the steps.
        self.held: NDArray[np.float32] | None = None
        self.mask: Future[None] | None = None
        # What is read of its text from disk before it is opened.
        self.fetch: Fetch | None = None
        self.decode_bytes = 0
        self.started = self.first = 0.0

    def close(self) -> None:
        """Release its cache pages, also those of its drafter."""
        self.give_up_fetch()
        self.sequence.close()
        self.drafts.close()

    def give_up_fetch(self) -> None:
        """Let no more of its text be read from disk."""
        if self.fetch:
            self.fetch.stop()
            self.fetch = None

    @property
    def tokens(self) -> list[int]:
        return self.generation.tokens

    @property
    def known(self) -> list[int]:
        """The tokens that may be found in the cache: all but the last, whose logits are needed."""
        return [] if self.request.pooling in ("mean", "none") or self.request.logits else self.tokens[:-1]

    @property
    def unread(self) -> int:
        return len(self.tokens) - self.sequence.length

    @property
    def decoding(self) -> bool:
        return self.unread == 1 and self.generation.written > 0

    @property
    def late(self) -> bool:
        """Whether its time is up."""
        most = self.request.max_seconds
        return most is not None and self.started > 0 and time.monotonic() - self.started > most

    def outputs(self, n: int) -> int:
        """Return how many of its next `n` rows need logits."""
        end = self.sequence.length + n
        if self.request.logits:
            return max(0, min(n, end - (len(self.tokens) - self.request.logits)))
        # Of the last token, and of every draft after it.
        return max(0, end - len(self.tokens) + 1) if self.request.pooling is None else 0

    def next(self, n: int) -> list[int]:
        """Return the next `n` tokens to read."""
        return self.tokens[self.sequence.length : self.sequence.length + n]


def share(tasks: Sequence[Task], rows: int) -> list[tuple[Task, int]]:
    """Share out rows among prompts: equally among users, and to each user's oldest prompts first."""
    users: dict[str, deque[Task]] = {}
    for task in tasks:
        users.setdefault(task.request.user, deque()).append(task)
    given: dict[Task, int] = {}
    while rows and users:
        part = max(1, rows // len(users))
        for user, mine in list(users.items()):
            n = min(part, mine[0].unread - given.get(mine[0], 0), rows)
            if n:
                given[mine[0]] = given.get(mine[0], 0) + n
                rows -= n
            if given.get(mine[0], 0) == mine[0].unread:
                mine.popleft()
            if not mine:
                del users[user]
    return list(given.items())


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    n = min(len(a), len(b))
    different = np.flatnonzero(np.asarray(a[:n]) != np.asarray(b[:n]))
    return int(different[0]) if len(different) else n
