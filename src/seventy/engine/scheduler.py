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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from seventy.cache.fetch import Fetch
from seventy.engine.drafts import Drafts
from seventy.engine.fetches import Fetches
from seventy.engine.generation import Generation
from seventy.engine.model import MAX_OUTPUTS, Aborted, Model, Segment, Step
from seventy.engine.prefill_budget import PrefillBudget
from seventy.engine.request import Embedded, Event, Failed, Finished, Logits, Progress, QueueFull, Request, TooLong
from seventy.engine.sampler import TopK
from seventy.engine.task import Statistics, Task, common_length, share
from seventy.errors import SeventyError
from seventy.kernels.pages import PAGE
from seventy.kernels.short_convolution import MAX_PENDING
from seventy.language import t
from seventy.machine.topology import run_when_idle
from seventy.text.grammar import Constraint, ConstraintError
from seventy.text.tokenizer import Tokenizer

_log = logging.getLogger("seventy.engine")
_DAMAGED = (
    t(
        "the model's answer is not a number (NaN or infinity): its weights are damaged, or the file was made "
        "wrongly; get it again or take another quant"
    )
)
# How long to wait for a mask when nothing else is to be done, before looking for requests that were cancelled.
_HELD_SECONDS = 0.05
# How much of the time may go to copying idle pages and writing them to the disk while answers are written.
_WRITING_SHARE = 0.01
_MASKS = ThreadPoolExecutor(2, "seventy-mask", initializer=run_when_idle)


class Scheduler:
    """Runs requests on a model, at most `parallel` at once, and `queue` waiting.

    `slowdown`: how many times longer a step may take than one of the running answers alone while prompts are read
    beside them: near 1 the answers keep their pace and prompts wait, large numbers the other way round. Without
    `drafts` nothing is guessed.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        top_k: TopK,
        parallel: int = 4,
        queue: int = 64,
        slowdown: float = 2.0,
        drafts: Drafts | None = None,
    ) -> None:
        if not 1 <= parallel <= MAX_OUTPUTS:
            raise SeventyError(
                "parallel must be from 1 to {max_outputs}, not {parallel}",
                max_outputs=MAX_OUTPUTS, parallel=parallel,
            )
        if queue < 1 or not slowdown >= 1:
            raise SeventyError(
                "queue and slowdown must be at least 1, not {queue} and {slowdown:g}",
                queue=queue, slowdown=slowdown,
            )
        self.model, self.parallel, self.queue = model, parallel, queue
        self.statistics = Statistics()
        self._tokenizer, self._top_k = tokenizer, top_k
        self._budget = PrefillBudget(slowdown, model.max_rows)
        self.drafts = drafts or Drafts(lookup=False)
        if model.cache.recurrent:
            self.drafts.most = min(self.drafts.most, MAX_PENDING)
        # Guards what other threads see: the queues, the running ones, the batch of the step that runs now.
        self._lock = threading.Condition()
        self._waiting: dict[str, deque[Task]] = {}
        self._running: list[Task] = []
        self._batch: list[Task] = []
        self._turns = itertools.count(1)
        self._last_turn: dict[str, int] = {}
        self._seconds_per_request = 1.0
        self._closing = False
        self._fetches = Fetches(self._notify)
        # Before this time of time.monotonic no idle page is copied beside answers.
        self._next_copy = self._writing_seconds = 0.0
        self._outbox: list[tuple[Request, Event]] = []
        self._thread = threading.Thread(target=self._work, name="seventy-engine", daemon=True)
        self._thread.start()

    # For other threads

    def submit(self, request: Request) -> None:
        """Take a request. Raises TooLong, QueueFull, or SeventyError when the engine is closing."""
        n, context = len(request.ids), self.model.context
        if n + request.writes > context:
            raise TooLong(
                t(
                    "the prompt has {n} tokens, and the context of {context} has no room for an answer after it; "
                    "shorten the prompt or start with a larger context",
                    n=n, context=context,
                ) if request.writes else t(
                    "the text is too large: {n} tokens, and the context has {context}; send a shorter one, or start "
                    "with a larger context",
                    n=n, context=context,
                ),
                n, context,
            )  # fmt: skip
        generation = Generation(request, self._tokenizer, self._top_k, context)
        sequence = self.model.new_sequence()
        drafts = self.drafts.open(generation, sequence, request.user if request.writes else None)
        task = Task(request, sequence, generation, drafts)
        with self._lock:
            if self._closing:
                raise SeventyError("the server is shutting down; try again when it is back")
            waiting = sum(map(len, self._waiting.values()))
            mine = self._waiting.get(request.user, ())
            # One user alone may fill the queue to the half: the others get in.
            if waiting >= self.queue or (len(mine) >= -(-self.queue // 2) and self.queue > 1):
                retry = max(1, round(self._seconds_per_request * (waiting + 1) / self.parallel))
                raise QueueFull(
                    t(
                        "{waiting} requests are waiting, {mine_count} of them yours; try again in {retry} s",
                        waiting=waiting, mine_count=len(mine), retry=retry,
                    ), retry
                )
            self._waiting.setdefault(request.user, deque()).append(task)
            self.statistics.requests += 1
            self._count()
            ahead = waiting if len(self._running) >= self.parallel else 0
            self._lock.notify()
        if ahead:
            request.deliver(Progress(0, n, 0, None, ahead))

    def cancel(self, request: Request) -> None:
        """Cancel a request. Its pages are freed before the next step, and a step of it alone stops at once."""
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
        """Cancel all requests and end the thread."""
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
                self._fetches.close()
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
                self.drafts.governor.begin()
            pause = self._write_idle()
            with self._lock:
                while not (self._waiting or self._running or self._closing or self._fetches):
                    self.statistics.last_batch = 0
                    if not self._lock.wait(pause):
                        break
                self._drop_cancelled()
                if self._closing:
                    self._deliver()
                    return
            self._choose_held()
            with self._lock:
                for task in self._fetches.advance(max(0, len(self._running) - 1)):
                    self._open(task)
                self._admit()
                batch = self._plan()
                self._batch = [task for task, _ in batch]
                self._count()
            if batch:
                self._step(batch)
                continue
            self._deliver()
            with self._lock:
                held = any(task.held is not None and task.mask and not task.mask.done() for task in self._running)
                if held or self._fetches:
                    self._lock.wait(_HELD_SECONDS)

    def _write_idle(self) -> float | None:
        """Copy an idle page for the disk, if that is due; return for how long nothing more is."""
        start = time.monotonic()
        if self._running and start < self._next_copy:
            return None
        pause = self.model.cache.write_idle()
        store, now = self.model.cache.store, time.monotonic()
        if store:
            # A core that writes is missed by the step: all its threads wait for each other.
            written, self._writing_seconds = self._writing_seconds, store.cpu_seconds
            self._next_copy = now + (now - start + self._writing_seconds - written) / _WRITING_SHARE
        return pause

    def _deliver(self) -> None:
        outbox, self._outbox = self._outbox, []
        for request, event in outbox:
            request.deliver(event)

    def _deliver_and_look(self) -> bool:
        """Hand on what there is; return whether anybody still wants the step that was planned."""
        self._deliver()
        return not all(task.request.cancelled for task in self._batch)

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
            self._running.append(task)
            fetch = Fetch.of(self.model.cache, task.known)
            if fetch:
                self._fetches.begin(task, fetch)
                self._fetches.advance(len(self._running) - 1)
            else:
                self._open(task)

    def _open(self, task: Task) -> None:
        """Let a task begin with what the cache has of its text."""
        cached = task.sequence.open(task.known)
        if task.cached is None:
            task.cached, task.started = cached, time.monotonic()
            self.statistics.prompt_tokens += len(task.tokens)
            self.statistics.cached_tokens += cached
            # Before anything is read: clients see how much there is.
            self._outbox.append((task.request, self._progress(task, cached)))

    def _may_start(self, task: Task) -> bool:
        """Not while there is no room for its prompt, nor while another reads what both begin with."""
        if self._running and not self.model.cache.has_room(len(task.tokens), len(self._running)):
            return False
        for other in self._running:
            if not other.decoding and other.tokens[:PAGE] == task.tokens[:PAGE]:
                common = common_length(other.tokens, task.tokens[:-1]) // PAGE * PAGE
                if common > other.sequence.length:
                    other.sequence.mark(common)
                    return False
        return True

    def _plan(self) -> list[tuple[Task, int]]:
        """Who is in the next step, and with how many rows: tokens to read, or the last one and drafts."""
        ready = [task for task in self._running if task.held is None and task.fetch is None]
        decoding = [task for task in ready if task.decoding]
        reading = [task for task in ready if not task.decoding]
        batch = [(task, 1) for task in decoding]
        if reading:
            room = self._budget.prompt_rows(len(decoding))
            if any(task.request.logits for task in reading):
                room = min(room, MAX_OUTPUTS - len(decoding))
            batch += [(task, task.sequence.until_mark(n)) for task, n in share(reading, room)]
        while (short := self._missing_pages(batch)) > 0:
            if self._fetches.settle():
                continue
            # The youngest makes room: it waits for the others and loses no text.
            youngest = self._running[-1]
            assert len(self._running) > 1, f"{short} pages short for one sequence alone"
            self._preempt(youngest)
            batch = [(task, n) for task, n in batch if task is not youngest]
        return batch if reading else self._with_drafts([task for task, _ in batch])

    def _with_drafts(self, tasks: list[Task]) -> list[tuple[Task, int]]:
        """The running answers with the drafts that pay. They take nobody's pages."""
        numbers = self.drafts.plan([task.drafts for task in tasks], MAX_OUTPUTS - len(tasks))
        while any(numbers) and self._missing_pages([(t, 1 + n) for t, n in zip(tasks, numbers, strict=True)]) > 0:
            numbers[numbers.index(max(numbers))] -= 1
        return [(task, 1 + n) for task, n in zip(tasks, numbers, strict=True)]

    def _tokens(self, batch: list[tuple[Task, int]]) -> list[tuple[Task, list[int]]]:
        """The tokens of each of these rows: guesses are made now."""
        if not any(task.decoding and n > 1 for task, n in batch):
            return [(task, task.next(n)) for task, n in batch]
        guesses = self.drafts.propose([task.drafts for task, _ in batch], [n - 1 for _, n in batch])
        return [(task, [*task.next(1), *guessed]) for (task, _), guessed in zip(batch, guesses, strict=True)]

    def _missing_pages(self, batch: Sequence[tuple[Task, int]]) -> int:
        wanted = sum(task.sequence.missing_pages(task.sequence.length + n) for task, n in batch)
        return wanted - self.model.cache.free_pages

    def _preempt(self, task: Task) -> None:
        self._running.remove(task)
        task.close()
        # Its mask is still that of its next token; whoever makes it cannot be stopped.
        task.states = task.held = None
        self._waiting.setdefault(task.request.user, deque()).appendleft(task)
        self.statistics.preempted += 1

    def _step(self, planned: list[tuple[Task, int]]) -> None:
        start = time.monotonic()
        try:
            batch = self._tokens(planned)
            segments = [_segment(task, tokens) for task, tokens in batch]
            drafting, start = time.monotonic() - start, time.monotonic()
            step = self.model.step(segments, self._deliver_and_look)
        except Aborted:
            return
        except Exception as error:
            _log.exception("a step failed")
            with self._lock:
                for task, _ in planned:
                    self._fail(task, error)
            return
        finally:
            with self._lock:
                self._batch = []
        seconds, n_rows = time.monotonic() - start, sum(len(tokens) for _, tokens in batch)
        answers = [(task, len(tokens), task.generation.written) for task, tokens in batch if task.decoding]
        answer_rows = sum(n for _, n, _ in answers)
        self._budget.record(answer_rows, n_rows, seconds)
        for task, _, _ in answers:
            task.decode_bytes += step.bytes_read
        self._take_all(batch, segments, step)
        written = [task.generation.written - before for task, _, before in answers]
        self._watch(sum(written), answer_rows, n_rows, seconds)
        if n_rows > answer_rows:
            self.drafts.record_prompt(n_rows - answer_rows, seconds)
        else:
            # With the time that choosing the tokens took.
            seconds, texts = time.monotonic() - start, [task.drafts for task, _, _ in answers]
            # Guesses that were left out after all took their time, too.
            guessed = any(n > 1 for _, n in planned)
            gained = self.drafts.record(texts, written, n_rows, seconds, drafting if guessed else 0.0)
            self.statistics.gained_seconds += gained
        for task, _ in batch:
            if task.generation.reason and task in self._running:
                with self._lock:
                    self._finish(task, task.generation.reason)

    def _take_all(self, batch: list[tuple[Task, list[int]]], segments: list[Segment], step: Step) -> None:
        """Hand on what a step gave for each request; what is wrong with one fails that one."""
        row = output = 0
        for i, ((task, tokens), segment) in enumerate(zip(batch, segments, strict=True)):
            n = len(tokens)
            try:
                if i not in step.bad:
                    self._take(task, row, tokens, step.logits[output : output + segment.outputs])
                elif task.decoding and n > 1:
                    # It may have been a draft's: without any the next step says.
                    task.drafts.stop()
                else:
                    raise SeventyError(_DAMAGED)
            except Exception as error:
                if not isinstance(error, SeventyError):
                    _log.exception("a request failed")
                with self._lock:
                    self._fail(task, error)
            row, output = row + n, output + segment.outputs

    def _take(self, task: Task, row: int, tokens: list[int], logits: NDArray[np.float32]) -> None:
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

    def _progress(self, task: Task, done: int) -> Progress:
        total, cached = len(task.tokens), task.cached or 0
        elapsed = time.monotonic() - task.started
        left = elapsed / (done - cached) * (total - done) if done > cached else None
        return Progress(done, total, cached, left)

    def _write(self, task: Task, tokens: list[int], logits: NDArray[np.float32]) -> None:
        """Let the text go on by a token for each row of logits, up to the first that was fed another, and say so."""
        generation, drafted = task.generation, len(logits) - 1
        if not generation.written:
            task.first = time.monotonic()
            self._outbox.append((task.request, self._progress(task, len(task.tokens))))
        if (constraint := task.request.constraint) is not None and (task.mask or constraint.slow):
            task.sequence.commit(tokens[: len(tokens) - drafted])
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
        self.statistics.drafted_tokens += drafted
        self.statistics.accepted_tokens += accepted
        self.drafts.observe(task.drafts, drafted, accepted)

    def _hold(self, task: Task, constraint: Constraint, logits: NDArray[np.float32]) -> None:
        """Let a task wait for what its constraint allows, which is found out beside the steps of the others."""
        # Guesses are of no use to it: each would need a mask of its own.
        task.drafts.stop()
        task.held = logits.copy()
        if task.mask is None:
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

    def _pool(self, task: Task, states: NDArray[np.float32]) -> None:
        if task.request.pooling == "none":
            self._outbox.append((task.request, Embedded(states)))
            if not task.unread:
                with self._lock:
                    self._finish(task, "stop")
            return
        mean = task.request.pooling == "mean"
        # In doubles, so that it does not matter how the text was cut into pieces.
        last = states.sum(axis=0, dtype=np.float64) if mean else states[-1].astype(np.float64)
        task.states = task.states + last if mean and task.states is not None else last
        if not task.unread:
            vector = task.states / len(task.tokens) if mean else task.states
            self._outbox.append((task.request, Embedded(np.asarray(vector, np.float32))))
            with self._lock:
                self._finish(task, "stop")

    def _finish(self, task: Task, reason: str) -> None:
        """With the lock held."""
        now = time.monotonic()
        if task in self._running:
            self._running.remove(task)
        self.drafts.end(task.drafts)
        task.close()
        started, first = task.started or now, task.first or now
        if reason == "cancelled":
            self.statistics.cancelled += 1
        else:
            self._seconds_per_request += (now - started - self._seconds_per_request) / 8
        self._count()
        event = Finished(
            reason, len(task.request.ids), task.cached or 0, task.generation.written,
            started - task.request.since, first - started, now - first,
            task.generation.cut_by, task.generation.end_token, task.decode_bytes, task.drafts.drafted,
            task.drafts.accepted, task.generation.stop, task.drafts.gained_seconds,
        )  # fmt: skip
        self._outbox.append((task.request, event))

    def _fail(self, task: Task, error: BaseException) -> None:
        if task in self._running:
            self._running.remove(task)
        task.close()
        self._count()
        failed = t("the engine failed ({error}); this is a bug", error=repr(error))
        message = error.text if isinstance(error, SeventyError) else failed
        self._outbox.append((task.request, Failed(message, isinstance(error, ConstraintError))))


def _segment(task: Task, tokens: list[int]) -> Segment:
    """Make room for these tokens of a request and say where they stand; behind the first of an answer's are drafts."""
    sequence, at = task.sequence, task.sequence.length
    sequence.reserve(at + len(tokens), len(tokens) - 1 if task.decoding else 0)
    return Segment(at, tokens, task.outputs(len(tokens)), sequence.pages, sequence.states)
