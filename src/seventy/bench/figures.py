"""From timings to a result: bytes and operations per second, extrapolation, energy, the ratio to a peer."""

import statistics
from collections.abc import Mapping

from seventy.bench.card import Result, Samples, Versus
from seventy.bench.measure import Figure, Ratio, Task
from seventy.engine.model import Model


def operations(model: Model, task: Task) -> int:
    """Count the matrix operations in one run of the task; in a prompt only the last token has logits."""
    return model.operations(task.tokens, 1 if task.what == "prefill" else task.tokens)


def cache_bytes(model: Model, task: Task) -> int:
    """Return the bytes of the cache that one run of the task reads; 0 for a prompt, which reads it tile by tile."""
    if task.what == "prefill":
        return 0
    sequences, steps = (1, task.n) if task.what == "decode" else (task.n, task.passes)
    weights = model.read_bytes(0)
    return sequences * sum(model.read_bytes(task.depth + step + 1) - weights for step in range(steps))


def extrapolate(whole: Figure, blocks: Figure, scale: float) -> Samples:
    """Extrapolate the tokens per second of a model whose layers take `scale` times as long, with the same head.

    `whole` was measured with the head, `blocks` without it, in pairs one after the other.
    """
    values = []
    for with_head, without in zip(whole.samples, blocks.samples, strict=True):
        head = max(0.0, 1 / with_head - 1 / without)
        values.append(1 / (scale / without + head))
    return Samples.of(values)


def result(model: Model, figures: Mapping[str, Figure], layer_scale: float | None) -> Result:
    """Compute a task's result from each engine's measurements; `layer_scale` is set if layers were left out."""
    ours = figures["seventy"]
    task, theirs, blocks = ours.task, figures.get("llama.cpp"), figures.get("seventy without its head")
    runs = ours.median / task.tokens
    weights, ops = statistics.median(ours.weight_bytes), operations(model, task)
    whole = extrapolate(ours, blocks, layer_scale) if blocks and layer_scale else None
    # Joules go with the time: those of the layers that ran would say nothing of the model.
    longer = ours.median / whole.median if whole else 1.0
    versus = None
    if theirs:
        ratio = Ratio.of(ours, theirs)
        versus = Versus(Samples.of(theirs.samples), ratio.median, ratio.low, ratio.high)
    return Result(
        what=task.what,
        n=task.n,
        depth=task.depth,
        passes=task.passes,
        tokens_per_second=Samples.of(ours.samples),
        gbs=runs * (weights + cache_bytes(model, task)) / 1e9,
        gops=runs * ops / 1e9,
        operations_per_byte=ops / weights,
        whole_model=whole,
        joules_per_token=Samples.of([longer * joules for joules in ours.joules]) if ours.joules else None,
        versus=versus,
        read_limit_gbs=Samples.of(ours.limits) if ours.limits else None,
        experts=statistics.median(ours.experts) if any(ours.experts) else None,
    )
