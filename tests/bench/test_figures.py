"""What a speed stands for: bytes and operations, counted by hand on the tiny model."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seventy.bench import energy, engine, figures
from seventy.bench.energy import Wall, cny_per_million_tokens
from seventy.bench.engine import Seventy
from seventy.bench.measure import Figure, Task
from seventy.engine.model import Model
from seventy.jit.compiler import Library
from seventy.measure import rates
from seventy.measure.rates import Area
from tests.support.tiny import (
    EXPERT_WIDTH,
    EXPERTS,
    FEED_FORWARD,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    USED,
    write_tiny,
)

VOCABULARY = 259
HEAD = VOCABULARY * HIDDEN
BLOCKS = LAYERS * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN * KV_HEADS // HEADS + 3 * HIDDEN * FEED_FORWARD)
Q4_K_BYTES = 144 / 256


@pytest.fixture(scope="module")
def model(tiny: Path) -> Iterator[Model]:
    with Model(tiny, 2, 512) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("task", "blocks", "heads"),
    [(Task("prefill", 300), 300, 1), (Task("decode", 5, 7), 5, 5), (Task("batch", 4, 16, 3), 12, 12)],
)
def test_operations(model: Model, task: Task, blocks: int, heads: int) -> None:
    assert figures.operations(model, task) == 2 * (blocks * BLOCKS + heads * HEAD)


@pytest.mark.parametrize(
    ("task", "blocks", "heads"),
    [
        (Task("prefill", 300), 2, 1),
        (Task("prefill", 256), 1, 1),
        (Task("decode", 5), 5, 5),
        (Task("batch", 4, 16, 3), 3, 3),
    ],
)
def test_weight_bytes(model: Model, task: Task, blocks: int, heads: int) -> None:
    assert task.run(Seventy(model)).weight_bytes == Q4_K_BYTES * (blocks * BLOCKS + heads * HEAD)


def test_a_mixture_reads_the_experts_that_rows_go_to(tmp_path: Path) -> None:
    expert = LAYERS * 3 * HIDDEN * EXPERT_WIDTH
    router = LAYERS * EXPERTS * HIDDEN
    blocks = LAYERS * (2 * HIDDEN * 128 * HEADS + 2 * HIDDEN * 128 * KV_HEADS)
    with Model(write_tiny(tmp_path / "model.gguf", "qwen3moe"), 2, 512) as mixture:
        each = Q4_K_BYTES * (blocks + HEAD) + 4 * router
        assert mixture.read_bytes(0) == each + USED * Q4_K_BYTES * expert
        alone, prompt = (task.run(Seventy(mixture)) for task in (Task("decode", 5), Task("prefill", 200)))
        assert (alone.weight_bytes, alone.experts) == (5 * mixture.read_bytes(0), USED)
        # So many rows go to every expert; each is read once.
        assert (prompt.weight_bytes, prompt.experts) == (each + EXPERTS * Q4_K_BYTES * expert, EXPERTS)
        assert mixture.operations(3, 1) == 2 * (3 * (blocks + router + USED * expert) + HEAD)


def test_cache_bytes(model: Model) -> None:
    position = LAYERS * 2 * 2 * KV_HEADS * HIDDEN // HEADS
    assert figures.cache_bytes(model, Task("prefill", 300)) == 0
    assert figures.cache_bytes(model, Task("decode", 3, 10)) == (11 + 12 + 13) * position
    assert figures.cache_bytes(model, Task("batch", 4, 16, 2)) == 4 * (17 + 18) * position


def test_result(model: Model) -> None:
    task = Task("decode", 4, 0)
    ours = Figure(task, "seventy", (90.0, 100.0, 110.0), (0.5, 0.6, 0.7))
    ours = replace(ours, limits=(9.0, 8.0, 10.0), weight_bytes=(4 * model.read_bytes(0),) * 3)
    theirs = Figure(task, "llama.cpp", (45.0, 50.0, 55.0))
    found = figures.result(model, {"seventy": ours, "llama.cpp": theirs}, None)
    assert found.tokens_per_second.median == 100
    assert found.gops == pytest.approx(100 * 2 * (BLOCKS + HEAD) / 1e9)
    assert found.operations_per_byte == pytest.approx(2 / Q4_K_BYTES)
    # On average 2.5 positions are read.
    position = model.read_bytes(1) - model.read_bytes(0)
    assert found.gbs == pytest.approx(100 * (model.read_bytes(0) + 2.5 * position) / 1e9)
    assert found.versus and found.versus.ratio == 2
    assert found.joules_per_token and found.joules_per_token.median == 0.6
    assert found.whole_model is None
    assert found.read_limit_gbs and found.read_limit_gbs.median == 9


def test_joules_are_of_the_whole_model(model: Model) -> None:
    task = Task("decode", 4, 0)
    ours = Figure(task, "seventy", (100.0, 100.0), (0.5, 0.5), weight_bytes=(4 * model.read_bytes(0),) * 2)
    blocks = Figure(task, "seventy without its head", (125.0, 125.0))
    found = figures.result(model, {"seventy": ours, "seventy without its head": blocks}, 10.0)
    # 8 ms of layers and 2 of head become 82 ms.
    assert found.joules_per_token and found.joules_per_token.median == pytest.approx(0.5 * 8.2)


@pytest.mark.parametrize("least", [0, 1 << 40])
def test_memory_is_read_beside_each_task(model: Model, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_LEAST_PROBE_BYTES", least)
    monkeypatch.setattr(engine, "_PROBE_CACHES", 0)
    threads: list[int] = []

    def read_now(library: Library, area: Area) -> float:
        assert np.shares_memory(area.memory, model.program.weights.memory)
        threads.append(len(area.cpus))
        return 123.0

    monkeypatch.setattr(rates, "read_now", read_now)
    for timing in (Seventy(model).prefill(8), Seventy(model).decode(2, 3), Seventy(model).batch(2, 3, 1)):
        assert timing.limit_gbs == (None if least else 123.0)
    assert threads == ([] if least else [2, 2, 2])


def test_extrapolation_scales_the_layers_and_not_the_head() -> None:
    task = Task("decode", 1)
    # A head of 0.2 s on layers of 0.8 s: ten times the layers are 8 s.
    found = figures.extrapolate(Figure(task, "", (1.0, 1.0)), Figure(task, "", (1.25, 1.25)), 10.0)
    assert found.median == pytest.approx(1 / 8.2)
    # A head that noise made negative is none.
    assert figures.extrapolate(Figure(task, "", (1.0,)), Figure(task, "", (0.9,)), 2.0).median == pytest.approx(0.45)


def test_energy_at_a_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 12.5))
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(clock))
    with Wall(100.0) as meter:
        pass
    assert meter.joules == 250


def test_price_of_energy() -> None:
    # 3.6 J a token is 1 Wh for 1000 of them, 1 kWh for a million.
    assert cny_per_million_tokens(3.6, 0.6) == pytest.approx(0.6)
