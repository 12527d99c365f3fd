"""Several users at once: a step carries one token of every running answer, or drafts too, and pieces of new prompts.

One thread runs the steps; `submit` and `cancel` are for any other. Requests wait in a queue per user and are taken in
turn; a running request that finds no page of the cache left gives up its own for an older one and goes on later (what
it had read is still in the cache, as long as there is room). A row's result does not depend on its company, so a text
under load is the text alone. Drafts (engine/drafts.py) are tokens of an answer before they are chosen: of each row the
next token is chosen as ever, and rows count up to the first one that was fed another token. This module knows neither
HTTP nor asyncio.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seventy.cache.prefix import Sequence as CachedSequence
from seventy.engine import drafts
from seventy.engine.drafts import MAX_DRAFT, Drafter, Governor, Lookup
from seventy.engine.generation import Generation
from seventy.engine.model import MAX_OUTPUTS, MAX_ROWS, Aborted, Model, Segment
from seventy.engine.prefill_budget import PrefillBudget
from seventy.engine.request import Embedded, Event, Failed, Finished, Logits, Progress, QueueFull, Request, TooLong
from seventy.engine.sampler import TopK
from seventy.errors import SeventyError
from seventy.kernels.pages import PAGE
from seventy.machine.topology import yield_to_others
from seventy.text.grammar import Constraint, ConstraintError
from seventy.text.tokenizer import Tokenizer

_log = logging.getLogger("seventy.engine")
_DAMAGED = (
    "the model's answer is not a number (NaN or infinity): its weights are damaged, or the file was made wrongly; "
    "get it again or take another quant"
)
# How long to wait for a mask when nothing else is to be done, before looking for requests that were cancelled.
_HELD_SECONDS = 0.05
_MASKS = ThreadPoolExecutor(2, "seventy-mask", initializer=yield_to_others)


@dataclass(slots=True)
class Statistics:
    """Counters since the start, and what is happening now."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0
    rows: int = 0
    preempted: int = 0
    cancelled: int = 0
    running: int = 0
    queued: int = 0
    last_batch: int = 0
    decode_tokens_per_second: float = 0.0
    prompt_tokens_per_second: float = 0.0


class _Task:
    """A request on its way: the text being written, and the sequence that holds what was read of it so far."""

    def __init__(
        self, request: Request, sequence: CachedSequence, generation: Generation, drafter: Drafter | None
    ) -> None:
        self.request, self.sequence, self.generation, self.drafter = request, sequence, generation, drafter
        self.cached: int | None = None
        self.states: NDArray[np.float64] | None = None
        # Logits whose token cannot be chosen yet: what its constraint allows is being found out beside the steps.
        self.held: NDArray[np.float32] | None = None
        self.mask: Future[None] | None = None
        self.decode_bytes = self.drafted = self.accepted = 0
        self.started = self.first = 0.0

    @property
    def tokens(self) -> list[int]:
        return self.generation.tokens

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
        """How many of its next `n` rows want logits."""
        end = self.sequence.length + n
        if self.request.logits:
            return max(0, min(n, end - (len(self.tokens) - self.request.logits)))
        # Of the last token, and of every draft after it.
        return max(0, end - len(self.tokens) + 1) if self.request.pooling is None else 0

    def next(self, n: int) -> list[int]:
        """Return the next `n` tokens to read."""
        return self.tokens[self.sequence.length : self.sequence.length + n]

    def chances(self) -> list[float]:
        """Return what the drafter hopes of its guesses, as many as there is room for in the answer."""
        return self.drafter.chances(min(MAX_DRAFT, self.generation.room - 1)) if self.drafter else []


class Scheduler:
    """Runs requests on a model, at most `parallel` at once, and `queue` waiting.

    `slowdown`: how many times longer a step may take than one of the running answers alone while prompts are read
    beside them: near 1 the answers keep their pace and prompts wait, large numbers the other way round. `draft` is one
    of engine.drafts.CHOICES.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        top_k: TopK,
        parallel: int = 4,
        queue: int = 64,
        slowdown: float = 2.0,
        draft: str = "auto",
    ) -> None:
        if not 1 <= parallel <= MAX_OUTPUTS:
            raise SeventyError(f"parallel must be from 1 to {MAX_OUTPUTS}, not {parallel}")
        if queue < 1 or not slowdown >= 1:
            raise SeventyError(f"queue and slowdown must be at least 1, not {queue} and {slowdown:g}")
        self.model, self.parallel, self.queue = model, parallel, queue
        self.statistics = Statistics()
        self._tokenizer, self._top_k = tokenizer, top_k
        self._budget = PrefillBudget(slowdown, MAX_ROWS)
        # A recurrent layer's state is that after all rows of a step: there is no way back from a draft yet.
        drafts_off = drafts.check(draft) == "off" or model.cache.recurrent
        self._drafter: Callable[[Sequence[int]], Drafter] | None = None if drafts_off else Lookup
        self._governor = Governor()
        # Guards what other threads see: the queues, the running ones, the batch of the step that runs now.
        self._lock = threading.Condition()
        self._waiting: dict[str, deque[_Task]] = {}
        self._running: list[_Task] = []
        self._batch: list[_Task] = []
        self._turns = itertools.count(1)
        self._last_turn: dict[str, int] = {}
        self._seconds_per_request = 1.0
        self._closing = False
        self._outbox: list[tuple[Request, Event]] = []
        self._thread = threading.Thread(target=self._work, name="seventy-engine", daemon=True)
        self._thread.start()

    # For other threads

    def submit(self, request: Request) -> None:
        """Take a request. Raises TooLong, QueueFull, or SeventyError when the engine is closing."""
        n, context = len(request.ids), self.model.context
        if n + request.writes > context:
            raise TooLong(
                f"the prompt has {n} tokens, and the context of {context} has no room for an answer after it; shorten "
                f"the prompt or start with a larger context",
                n, context,
            )  # fmt: skip
        generation = Generation(request, self._tokenizer, self._top_k, context)
        drafter = self._drafter(generation.tokens) if self._drafter and request.writes else None
        task = _Task(request, self.model.new_sequence(), generation, drafter)
        with self._lock:
            if self._closing:
                raise SeventyError("the server is shutting down; try again when it is back")
            waiting = sum(map(len, self._waiting.values()))
            mine = self._waiting.get(request.user, ())
            # One user alone may fill the queue to the half: the others get in.
            if waiting >= self.queue or (len(mine) >= -(-self.queue // 2) and self.queue > 1):
                retry = max(1, round(self._seconds_per_request * (waiting + 1) / self.parallel))
                raise QueueFull(
                    f"{waiting} requests are waiting, {len(mine)} of them yours; try again in {retry} s", retry
                )
            self._waiting.setdefault(request.user, deque()).append(task)
            self.statistics.requests += 1
            self._count()
            ahead = waiting if len(self._running) >= self.parallel else 0
            self._lock.notify()
        if ahead:
            request.deliver(Progress(0, n, 0, None, ahead))

    def cancel(self, request: Request) -> None:
        """Ends a request: its pages are free before the next step, and a step of it alone stops at once."""
        with self._lock:
            request.cancelled = True
            if self._batch and all(task.request.cancelled for task in self._batch):
                self.model.abort()
            self._lock.notify()

    def take_back(self) -> list[Request]:
        """Return the requests that have not begun, oldest first; they are not this scheduler's any more."""
        with self._lock:
            back: list[Request] = []
            for user, tasks in list(self._waiting.items()):
                back += [task.request for task in tasks if not task.started]
                # One that gave up its pages for an older request has begun, and goes on here.
                self._waiting[user] = deque(task for task in tasks if task.started)
                if not self._waiting[user]:
                    del self._waiting[user]
            self._count()
        return sorted(back, key=lambda request: request.since)

    @property
    def busy(self) -> bool:
        with self._lock:
            return bool(self._running or self._waiting)

    @property
    def alive(self) -> bool:
        """False after `close`, and after a bug that ended the engine's thread."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Cancels everything and ends the thread."""
        with self._lock:
            self._closing = True
            for task in itertools.chain(self._running, *self._waiting.values()):
                task.request.cancelled = True
            self.model.abort()
            self._lock.notify()
        self._thread.join()

    # The engine's thread

    def _work(self) -> None:
        try:
            with self.model.lead():
                self._run()
        except BaseException as error:
            _log.exception("the engine's thread ended")
            # A bug; nobody is to wait for ever.
            with self._lock:
                self._closing = True
                for task in [*self._running, *itertools.chain(*self._waiting.values())]:
                    self._fail(task, error)
                self._waiting.clear()
            self._deliver()
            raise

    def _run(self) -> None:
        while True:
            if not self._running:
                self._deliver()
            with self._lock:
                while not (self._waiting or self._running or self._closing):
                    self.statistics.last_batch = 0
                    self._lock.wait()
                self._drop_cancelled()
                if self._closing:
                    self._deliver()
                    return
            self._choose_held()
            with self._lock:
                self._admit()
                batch = self._plan()
                self._batch = [task for task, _ in batch]
                self._count()
            if batch:
                self._step(batch)
                continue
            self._deliver()
            with self._lock:
                if any(task.held is not None and task.mask and not task.mask.done() for task in self._running):
                    self._lock.wait(_HELD_SECONDS)

    def _deliver(self) -> None:
        outbox, self._outbox = self._outbox, []
        for request, event in outbox:
            request.deliver(event)

    def _count(self) -> None:
        self.statistics.running = len(self._running)
        self.statistics.queued = sum(map(len, self._waiting.values()))

    def _drop_cancelled(self) -> None:
        """Ends those that were cancelled, and those whose time is up."""
        for task in [task for task in self._running if task.request.cancelled or task.late]:
            if not task.request.cancelled:
                self._outbox.append((task.request, task.generation.cut("max_seconds")))
            self._finish(task, "cancelled" if task.request.cancelled else task.generation.reason)
        for user, tasks in list(self._waiting.items()):
            for task in [task for task in tasks if task.request.cancelled]:
                tasks.remove(task)
                self._finish(task, "cancelled")
            if not tasks:
                del self._waiting[user]

    def _admit(self) -> None:
        """Takes the next ones from the queue: of the user with fewest running, then whose turn is longest ago."""
        while len(self._running) < self.parallel and self._waiting:
            users = [task.request.user for task in self._running]
            order = sorted(self._waiting, key=lambda user: (users.count(user), self._last_turn.get(user, 0)))
            user = next((user for user in order if self._may_start(self._waiting[user][0])), None)
            if user is None:
                return
            task = self._waiting[user].popleft()
            if not self._waiting[user]:
                del self._waiting[user]
            self._last_turn[user] = next(self._turns)
            # The last token is always read: its logits are wanted.
            fresh = task.request.pooling == "mean" or task.request.logits
            cached = task.sequence.open([] if fresh else task.tokens[:-1])
            if task.cached is None:
                task.cached, task.started = cached, time.monotonic()
                self.statistics.prompt_tokens += len(task.tokens)
                self.statistics.cached_tokens += cached
            self._running.append(task)

    def _may_start(self, task: _Task) -> bool:
        """Not while there is no room for its prompt, nor while another reads what both begin with."""
        if self._running and not self.model.cache.has_room(len(task.tokens), len(self._running)):
            return False
        for other in self._running:
            if not other.decoding and other.tokens[:PAGE] == task.tokens[:PAGE]:
                common = _common(other.tokens, task.tokens[:-1]) // PAGE * PAGE
                if common > other.sequence.length:
                    other.sequence.mark(common)
                    return False
        return True

    def _plan(self) -> list[tuple[_Task, list[int]]]:
        """Who is in the next step, and with which tokens: those to read next, and drafts."""
        ready = [task for task in self._running if task.held is None]
        decoding = [task for task in ready if task.decoding]
        reading = [task for task in ready if not task.decoding]
        batch = [(task, 1) for task in decoding]
        if reading:
            room = self._budget.prompt_rows(len(decoding))
            if any(task.request.logits for task in reading):
                room = min(room, MAX_OUTPUTS - len(decoding))
            batch += [(task, task.sequence.until_mark(n)) for task, n in _share(reading, room)]
        while (short := self._missing_pages(batch)) > 0:
            # The youngest makes room: it waits for the others and loses no text.
            youngest = self._running[-1]
            assert len(self._running) > 1, f"{short} pages short for one sequence alone"
            self._preempt(youngest)
            batch = [(task, n) for task, n in batch if task is not youngest]
        if reading or not self._drafter:
            return [(task, task.next(n)) for task, n in batch]
        return self._with_drafts(decoding)

    def _with_drafts(self, tasks: list[_Task]) -> list[tuple[_Task, list[int]]]:
        """The next token of each running answer, and the drafts that pay. They take nobody's pages."""
        tasks = [task for task in tasks if task in self._running]
        chances = [task.chances() for task in tasks]
        if not any(chances):
            return [(task, task.tokens[-1:]) for task in tasks]
        numbers = self._governor.share(chances, MAX_OUTPUTS - len(tasks))
        while any(numbers) and self._missing_pages([(t, 1 + n) for t, n in zip(tasks, numbers, strict=True)]) > 0:
            numbers[numbers.index(max(numbers))] -= 1
        return [
            (task, task.tokens[-1:] + (task.drafter.propose(n) if n and task.drafter else []))
            for task, n in zip(tasks, numbers, strict=True)
        ]

    def _missing_pages(self, batch: Sequence[tuple[_Task, int]]) -> int:
        wanted = sum(task.sequence.missing_pages(task.sequence.length + n) for task, n in batch)
        return wanted - self.model.cache.free_pages

    def _preempt(self, task: _Task) -> None:
        self._running.remove(task)
        task.sequence.close()
        task.states = task.held = None
        self._waiting.setdefault(task.request.user, deque()).appendleft(task)
        self.statistics.preempted += 1

    def _step(self, batch: list[tuple[_Task, list[int]]]) -> None:
        decoding = [task for task, _ in batch if task.decoding]
        answer_rows = sum(len(tokens) for task, tokens in batch if task.decoding)
        segments = []
        for task, tokens in batch:
            at = task.sequence.length
            task.sequence.reserve(at + len(tokens))
            outputs, sequence = task.outputs(len(tokens)), task.sequence
            segments.append(Segment(at, tokens, outputs, sequence.pages, sequence.states))
        start = time.monotonic()
        try:
            step = self.model.step(segments, self._deliver)
        except Aborted:
            return
        except Exception as error:
            _log.exception("a step failed")
            with self._lock:
                for task, _ in batch:
                    self._fail(task, error)
            return
        finally:
            with self._lock:
                self._batch = []
        seconds, n_rows = time.monotonic() - start, sum(len(tokens) for _, tokens in batch)
        self._budget.record(answer_rows, n_rows, seconds)
        written = self.statistics.written_tokens
        for task in decoding:
            task.decode_bytes += step.bytes_read
        row = output = 0
        for i, ((task, tokens), segment) in enumerate(zip(batch, segments, strict=True)):
            n = len(tokens)
            try:
                if i not in step.bad:
                    self._take(task, row, tokens, step.logits[output : output + segment.outputs])
                elif task.decoding and n > 1:
                    # It may have been a draft's: without any the next step says.
                    task.drafter = None
                else:
                    raise SeventyError(_DAMAGED)
            except Exception as error:
                if not isinstance(error, SeventyError):
                    _log.exception("a request failed")
                with self._lock:
                    self._fail(task, error)
            row, output = row + n, output + segment.outputs
        written = self.statistics.written_tokens - written
        self._watch(written if decoding else 0, answer_rows, n_rows, seconds)
        if self._drafter and n_rows == answer_rows:
            # With the time that choosing the tokens took.
            self._governor.record(len(decoding), n_rows, written, time.monotonic() - start)

    def _take(self, task: _Task, row: int, tokens: list[int], logits: NDArray[np.float32]) -> None:
        """Hand on what a step gave for a request: its rows begin at `row`."""
        if task.request.writes and len(logits):
            self._write(task, tokens, logits)
            return
        task.sequence.commit(tokens)
        if task.request.pooling is not None:
            self._pool(task, self.model.states(row, row + len(tokens)))
        elif task.request.logits:
            if len(logits):
                first = task.sequence.length - len(logits)
                self._outbox.append((task.request, Logits(first, logits.copy())))
            if not task.unread:
                with self._lock:
                    self._finish(task, "stop")
        else:
            self._outbox.append((task.request, self._progress(task, task.sequence.length)))

    def _watch(self, written: int, answer_rows: int, n_rows: int, seconds: float) -> None:
        s = self.statistics
        s.steps += 1
        s.rows += n_rows
        s.last_batch = n_rows
        if written:
            s.decode_tokens_per_second += (written / seconds - s.decode_tokens_per_second) / 8
        if n_rows > answer_rows:
            s.prompt_tokens_per_second += ((n_rows - answer_rows) / seconds - s.prompt_tokens_per_second) / 4

    def _progress(self, task: _Task, done: int) -> Progress:
        total, cached = len(task.tokens), task.cached or 0
        elapsed = time.monotonic() - task.started
        left = elapsed / (done - cached) * (total - done) if done > cached else None
        return Progress(done, total, cached, left)

    def _write(self, task: _Task, tokens: list[int], logits: NDArray[np.float32]) -> None:
        """Let the text go on by a token for each row of logits, up to the first that was fed another, and say so."""
        generation, drafted = task.generation, len(logits) - 1
        if not generation.written:
            task.first = time.monotonic()
            self._outbox.append((task.request, self._progress(task, len(task.tokens))))
        if (constraint := task.request.constraint) is not None and constraint.slow:
            task.sequence.commit(tokens)
            self._hold(task, constraint, logits[0])
            return
        accepted = 0
        for row in logits:
            self._outbox.append((task.request, generation.write(row)))
            self.statistics.written_tokens += 1
            if generation.reason or accepted == drafted or generation.tokens[-1] != tokens[accepted - drafted]:
                break
            accepted += 1
        task.sequence.commit(tokens[: len(tokens) - drafted + accepted])
        if drafted:
            task.drafted, task.accepted = task.drafted + drafted, task.accepted + accepted
            self.statistics.drafted_tokens += drafted
            self.statistics.accepted_tokens += accepted
        if generation.reason:
            with self._lock:
                self._finish(task, generation.reason)
        elif task.drafter:
            task.drafter.observe()

    def _hold(self, task: _Task, constraint: Constraint, logits: NDArray[np.float32]) -> None:
        """Let a task wait for what its constraint allows, which is found out beside the steps of the others."""
        # Guesses are of no use to it: each would need a mask of its own.
        task.drafter, task.held = None, logits.copy()
        task.mask = _MASKS.submit(constraint.prepare)
        task.mask.add_done_callback(lambda _: self._notify())

    def _notify(self) -> None:
        with self._lock:
            self._lock.notify()

    def _choose_held(self) -> None:
        """Let the texts go on whose masks are there."""
        for task in [task for task in self._running if task.held is not None and task.mask and task.mask.done()]:
            logits, mask = task.held, task.mask
            task.held = task.mask = None
            assert logits is not None and mask is not None
            try:
                mask.result()
                self._outbox.append((task.request, task.generation.write(logits)))
                self.statistics.written_tokens += 1
                if task.generation.reason:
                    with self._lock:
                        self._finish(task, task.generation.reason)
            except Exception as error:
                if not isinstance(error, SeventyError):
                    _log.exception("a request failed")
                with self._lock:
                    self._fail(task, error)

    def _pool(self, task: _Task, states: NDArray[np.float32]) -> None:
        mean = task.request.pooling == "mean"
        # In doubles, so that it does not matter how the text was cut into pieces.
        last = states.sum(axis=0, dtype=np.float64) if mean else states[-1].astype(np.float64)
        task.states = task.states + last if mean and task.states is not None else last
        if not task.unread:
            vector = task.states / len(task.tokens) if mean else task.states
            self._outbox.append((task.request, Embedded(np.asarray(vector, np.float32))))
            with self._lock:
                self._finish(task, "stop")

    def _finish(self, task: _Task, reason: str) -> None:
        """With the lock held."""
        now = time.monotonic()
        if task in self._running:
            self._running.remove(task)
        task.sequence.close()
        started, first = task.started or now, task.first or now
        if reason == "cancelled":
            self.statistics.cancelled += 1
        else:
            self._seconds_per_request += (now - started - self._seconds_per_request) / 8
        self._count()
        event = Finished(
            reason, len(task.request.ids), task.cached or 0, task.generation.written,
            started - task.request.since, first - started, now - first,
            task.generation.cut_by, task.generation.end_token, task.decode_bytes, task.drafted, task.accepted,
            task.generation.stop,
        )  # fmt: skip
        self._outbox.append((task.request, event))

    def _fail(self, task: _Task, error: BaseException) -> None:
        if task in self._running:
            self._running.remove(task)
        task.sequence.close()
        self._count()
        message = str(error) if isinstance(error, SeventyError) else f"the engine failed ({error!r}); this is a bug"
        self._outbox.append((task.request, Failed(message, isinstance(error, ConstraintError))))


def _share(tasks: Sequence[_Task], rows: int) -> list[tuple[_Task, int]]:
    """Shares out rows among prompts: as many to each user, and to each user's oldest first."""
    users: dict[str, deque[_Task]] = {}
    for task in tasks:
        users.setdefault(task.request.user, deque()).append(task)
    given: dict[_Task, int] = {}
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


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    n = min(len(a), len(b))
    different = np.flatnonzero(np.asarray(a[:n]) != np.asarray(b[:n]))
    return int(different[0]) if len(different) else n
