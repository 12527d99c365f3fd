"""What a file is counted to take is what the engine then takes."""

from pathlib import Path
from types import ModuleType

import pytest

from seventy import models
from seventy.bench.synthetic import Synthetic, find_shape
from seventy.cache.pages import Pages
from seventy.cache.states import States
from seventy.engine.footprint import footprint, least_and_full
from seventy.engine.model import Model
from seventy.gguf.file import GGUF
from seventy.graph.outline import Outline
from seventy.graph.program import Program
from seventy.runtime.memory import MAX_MIXTURE_ROWS, MAX_OUTPUTS, Footprint
from tests.support.families import gemma4, gpt_oss, qwen35, qwen35moe
from tests.support.tiny import write_tiny


def counted(path: Path, model: Model, kv: str = "f16") -> Footprint:
    with GGUF(path) as file:
        return footprint(file, model.config, model.cache.memory.specs, kv)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "qwen3moe"])
@pytest.mark.parametrize("format_name", ["Q4_K", "Q8_0", "F16"])
def test_the_account_holds(tmp_path: Path, architecture: str, format_name: str) -> None:
    path = write_tiny(tmp_path / "model.gguf", architecture, format_name)
    for kv in "f16", "q8_0":
        with Model(path, 2, 512, kv=kv) as model:
            need = counted(path, model, kv).need(512, rows=model.max_rows)
            assert model.max_rows == (512 if architecture == "qwen3moe" else 256)
            assert need.cache == len(model.cache.memory.memory)
            assert len(model.program.weights.memory) <= need.weights <= 1.05 * len(model.program.weights.memory)
            # Attention's parts, shared by threads, are 1 to 5 MB of whatever model.
            rows = sum(len(area) for area in model.program.memory) - 5_000_000
            assert rows <= need.rows


@pytest.mark.parametrize(
    "name", ["DeepSeek-V2-Lite", "GLM-4.5-Air", "gpt-oss-20b", "Mixtral-8x7B-Instruct-v0.1", "MiniMax-M2"]
)
def test_rows_of_published_models_take_no_more_than_they_are_counted_to_take(name: str) -> None:
    source = Synthetic(find_shape(name), "Q4_K_M")
    need = source.footprint.need(512, rows=MAX_MIXTURE_ROWS)
    config = models.find(source.shape.architecture).config(source.metadata)
    tensors, source.tensors = source.tensors, {}
    weights = Outline(source, lambda name, shape: tensors[name], tensors.__contains__)
    pages = Pages(source.caches, 1, "f16")
    rows, states = source.footprint.max_rows, States(source.caches, 0)
    assert rows == MAX_MIXTURE_ROWS
    program = Program(weights, pages, states, 512, rows, MAX_OUTPUTS, config.epsilon, threads=8)
    models.find(source.shape.architecture).build(program, config, weights)
    program.finish()
    assert sum(len(area) for area in program.memory) <= need.rows


def test_the_account_holds_of_heads_of_two_sizes_and_experts_beside_a_feed_forward(tmp_path: Path) -> None:
    with Model(gemma4.write(tmp_path / "model.gguf", **gemma4.MOE), 2, 512) as model:
        need = counted(tmp_path / "model.gguf", model).need(512, rows=model.max_rows)
        assert need.cache == len(model.cache.memory.memory)
        assert sum(len(area) for area in model.program.memory) - 5_000_000 <= need.rows


def test_layers_with_windows_take_what_they_are_counted_to_take(tmp_path: Path) -> None:
    path = gpt_oss.write(tmp_path / "model.gguf", layers=2)
    with Model(path, 2, 2048) as model:
        memory, sizes = model.cache.memory, counted(path, model)
        assert sizes.need(2048).cache == len(memory.memory) < 0.95 * 2048 * memory.position_bytes
        assert sizes.need(1024).cache == 1024 * memory.position_bytes
    with Model(path, 2, 2048, sequences=3) as model:
        assert sizes.need(3 * 2048, 3).cache == len(model.cache.memory.memory)


@pytest.mark.parametrize("mtp", [False, True])
@pytest.mark.parametrize("family", [qwen35, qwen35moe])
def test_recurrent_layers_take_what_they_are_counted_to_take(family: ModuleType, mtp: bool, tmp_path: Path) -> None:
    path = family.write(tmp_path / "model.gguf", format="Q8_0", layers=4, nextn=1)
    with Model(path, 2, 512, sequences=2, mtp=mtp) as model:
        states, need = model.cache.states, counted(path, model).need(1024, 2, rows=model.max_rows)
        assert need.cache == len(model.cache.memory.memory)
        # All but the empty state, which is never written.
        assert need.states == states.n_states * states.nbytes == len(states.memory) - states.nbytes
        weights = model.program.weights
        taken = len(weights.memory) + sum(len(rows) for rows in weights.rows)
        assert taken <= need.weights <= 1.05 * taken
        assert sum(len(area) for area in model.program.memory) - 5_000_000 <= need.rows


def test_texts_share_what_memory_allows(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What other processes of this machine have promised does not count here.
    monkeypatch.setattr("seventy.runtime.reservations.folders", lambda: [tmp_path / "promises"])
    monkeypatch.setattr("seventy.machine.memory.total_bytes", lambda: 10**9)
    with Model(tiny, 2, 1024) as model:
        sizes = counted(tiny, model)
    monkeypatch.setattr("seventy.machine.memory.available_bytes", lambda: 10**9)
    with Model(tiny, 2, 1024, sequences=4) as model:
        assert model.cache.n_pages == 4 * 32
    # Room for one and a half of them.
    need = sizes.need(1536, 4).total
    monkeypatch.setattr("seventy.machine.memory.available_bytes", lambda: need + 250_000_000 // 4)
    with Model(tiny, 2, 1024, sequences=4) as model:
        assert model.cache.n_pages == 48 and model.context == 1024
    with Model(tiny, 2, None, sequences=4) as model:
        assert model.cache.n_pages == 48 and model.context == 1536


def test_a_share_of_memory_has_room_for_one_whole_text(tiny: Path) -> None:
    least, full = least_and_full(tiny, None, 4)
    assert least < full and least_and_full(tiny, 512) == least_and_full(tiny, 512, 4)
    with Model(tiny, 2, sequences=4) as greedy, Model(tiny, 2, sequences=4, memory=full) as modest:
        assert greedy.context == modest.context == 2048
        assert greedy.cache.n_pages == 4 * 64 and modest.cache.n_pages == 64
        assert modest.memory_bytes == full == counted(tiny, modest).need(2048).total
    with Model(tiny, 2, sequences=4, memory=least) as small:
        assert small.context == 1024 and small.memory_bytes == least
