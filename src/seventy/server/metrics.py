"""What happens in the server, as Prometheus reads it."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from seventy.engine.request import Finished
from seventy.server.pool import ModelPool
from seventy.server.switch import counted

# From a small model's step to a 70B's long prompt on two memory channels.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """A registry of its own: several servers in a process do not mix."""

    def __init__(self, pool: ModelPool) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Engines(pool))

        def histogram(name: str, words: str) -> Histogram:
            return Histogram(f"seventy_{name}", words, buckets=_SECONDS, registry=self.registry)

        self._queued = histogram("queued_seconds", "Time from a request's arrival to its start.")
        self._first = histogram("time_to_first_token_seconds", "Time from a request's arrival to its first token.")
        self._token = histogram("time_per_token_seconds", "Time between two tokens of an answer, its mean.")
        self._whole = histogram("request_seconds", "Time from a request's arrival to its end.")
        pool.observers.append(self._observe)

    def _observe(self, end: Finished) -> None:
        if end.reason == "cancelled":
            return
        self._queued.observe(end.queued_seconds)
        self._first.observe(end.queued_seconds + end.prompt_seconds)
        if end.written_tokens > 1:
            self._token.observe(end.decode_seconds / (end.written_tokens - 1))
        self._whole.observe(end.queued_seconds + end.prompt_seconds + end.decode_seconds)


class _Engines(Collector):
    """The counters of all models' schedulers, read when they are asked for; those of models that left are kept."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        pool = self._pool
        engines = pool.look(lambda backend: (backend.scheduler.statistics, backend.llm.model.cache))
        ready = float(pool.alive and not pool.starting)
        yield GaugeMetricFamily("seventy_ready", "1 when answers can be had.", ready)
        yield GaugeMetricFamily("seventy_models_loaded", "Models in memory.", len(engines))
        yield CounterMetricFamily("seventy_model_loads", "Times a model was loaded.", value=pool.loads)
        if pool.starting:
            return
        counts, now = pool.past.copy(), [statistics for statistics, _ in engines]
        for statistics in now:
            counts.update(counted(statistics))
        for name, words, of in (
            ("requests", "Requests taken.", "requests"),
            ("cancelled", "Requests that ended early.", "cancelled"),
            ("prompt_tokens", "Tokens of prompts.", "prompt_tokens"),
            ("prefix_hit_tokens", "Tokens of prompts that were in the cache.", "cached_tokens"),
            ("generated_tokens", "Tokens written.", "written_tokens"),
            ("drafted_tokens", "Tokens guessed.", "drafted_tokens"),
            ("accepted_tokens", "Tokens guessed that were right.", "accepted_tokens"),
            ("steps", "Steps of the engine.", "steps"),
            ("rows", "Rows of all steps.", "rows"),
            ("preemptions", "Times a request gave its pages to an older one.", "preempted"),
        ):
            yield CounterMetricFamily(f"seventy_{name}", words, value=counts[of])
        caches = [cache for _, cache in engines]
        decode = sum(s.decode_tokens_per_second for s in now)
        prompts = sum(s.prompt_tokens_per_second for s in now)
        for name, words, value in (
            ("running_requests", "Requests that run.", sum(s.running for s in now)),
            ("queued_requests", "Requests that wait.", sum(s.queued for s in now) + pool.waiting),
            ("batch_rows", "Rows of the last step.", sum(s.last_batch for s in now)),
            ("decode_tokens_per_second", "Tokens of all answers, lately.", decode),
            ("prompt_tokens_per_second", "Tokens of prompts, lately.", prompts),
            ("draft_gained_seconds", "Seconds that drafts have saved.", counts["gained_seconds"]),
            ("kv_pages", "Pages of the KV cache.", sum(cache.n_pages for cache in caches)),
            ("kv_pages_used", "Pages that running requests hold.", sum(c.n_pages - c.free_pages for c in caches)),
            ("kv_pages_cached", "Pages kept for prompts that begin alike.", sum(c.idle_pages for c in caches)),
        ):
            yield GaugeMetricFamily(f"seventy_{name}", words, value=value)
