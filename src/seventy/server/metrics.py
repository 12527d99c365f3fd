"""What happens in the server, as Prometheus reads it."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from seventy.engine.request import Finished
from seventy.server.backend import Backend

# From a small model's step to a 70B's long prompt on two memory channels.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """A registry of its own: several servers in a process do not mix."""

    def __init__(self, backend: Backend) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Engine(backend))

        def histogram(name: str, words: str) -> Histogram:
            return Histogram(f"seventy_{name}", words, buckets=_SECONDS, registry=self.registry)

        self._queued = histogram("queued_seconds", "Time from a request's arrival to its start.")
        self._first = histogram("time_to_first_token_seconds", "Time from a request's arrival to its first token.")
        self._token = histogram("time_per_token_seconds", "Time between two tokens of an answer, its mean.")
        self._whole = histogram("request_seconds", "Time from a request's arrival to its end.")
        backend.observers.append(self._observe)

    def _observe(self, end: Finished) -> None:
        if end.reason == "cancelled":
            return
        self._queued.observe(end.queued_seconds)
        self._first.observe(end.queued_seconds + end.prompt_seconds)
        if end.written_tokens > 1:
            self._token.observe(end.decode_seconds / (end.written_tokens - 1))
        self._whole.observe(end.queued_seconds + end.prompt_seconds + end.decode_seconds)


class _Engine(Collector):
    """The scheduler's own counters, read when they are asked for."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("seventy_ready", "1 when the model is loaded.", float(self._backend.ready))
        if not self._backend.ready:
            return
        scheduler, cache = self._backend.scheduler, self._backend.llm.model.cache
        s = scheduler.statistics
        for name, words, count in (
            ("requests", "Requests taken.", s.requests),
            ("cancelled", "Requests that ended early.", s.cancelled),
            ("prompt_tokens", "Tokens of prompts.", s.prompt_tokens),
            ("prefix_hit_tokens", "Tokens of prompts that were in the cache.", s.cached_tokens),
            ("generated_tokens", "Tokens written.", s.written_tokens),
            ("steps", "Steps of the engine.", s.steps),
            ("rows", "Rows of all steps.", s.rows),
            ("preemptions", "Times a request gave its pages to an older one.", s.preempted),
        ):
            yield CounterMetricFamily(f"seventy_{name}", words, value=count)
        for name, words, value in (
            ("running_requests", "Requests that run.", s.running),
            ("queued_requests", "Requests that wait.", s.queued),
            ("batch_rows", "Rows of the last step.", s.last_batch),
            ("decode_tokens_per_second", "Tokens of all answers, lately.", s.decode_tokens_per_second),
            ("prompt_tokens_per_second", "Tokens of prompts, lately.", s.prompt_tokens_per_second),
            ("kv_pages", "Pages of the KV cache.", cache.n_pages),
            ("kv_pages_used", "Pages that running requests hold.", cache.n_pages - cache.free_pages),
            ("kv_pages_cached", "Pages kept for prompts that begin alike.", cache.idle_pages),
        ):
            yield GaugeMetricFamily(f"seventy_{name}", words, value=value)
