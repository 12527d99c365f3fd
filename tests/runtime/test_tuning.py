import itertools
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM
from seventy.engine.model import Model
from seventy.jit import isa
from seventy.kernels import matmul
from seventy.machine import cpu_time, topology
from seventy.machine.topology import Cache, Core, Node, Topology, allowed_cpus
from seventy.runtime import tuning
from seventy.runtime.tuning import Candidates, ExecutionConfig, Trial, Tuning, tune

WIDE = isa.LEVELS["avx512"]
NARROW = isa.LEVELS["avx512-256"]
TOKENS = list(b"One box, the household or the office on it.") * 8


def machine(cores: int, per_core: int = 1, nodes: int = 1, slow: int = 0, quota: float | None = None) -> Topology:
    """`slow` of the cores are efficiency cores, without hyper-threads."""
    kinds = ["performance"] * (cores - slow) + ["efficiency"] * slow if slow else [""] * cores
    numbers = itertools.count()
    found = tuple(
        Core(tuple(next(numbers) for _ in range(1 if kind == "efficiency" else per_core)), 0, i * nodes // cores, kind)
        for i, kind in enumerate(kinds)
    )
    allowed = tuple(cpu for core in found for cpu in core.cpus)
    cache = Cache(3, "unified", 1 << 20, allowed)
    return Topology(found, tuple(Node(i, 0) for i in range(nodes)), (cache,), allowed, quota)


@pytest.mark.parametrize(
    ("where", "prefill", "decode"),
    [
        (machine(1), (1,), (1,)),
        (machine(2), (2,), (2, 1)),
        (machine(16, per_core=2, nodes=2), (16, 32), (16, 32, 12, 8, 4)),
        (machine(10, per_core=2, slow=4), (10, 6, 16), (10, 6, 16, 8, 5, 3)),
        # Half of the 16 CPUs' time: hyper-threads would only use it up sooner.
        (machine(8, per_core=2, quota=8.0), (8,), (8, 6, 4, 2)),
    ],
)
def test_candidates(where: Topology, prefill: tuple[int, ...], decode: tuple[int, ...]) -> None:
    found = Candidates.of(where, [WIDE, NARROW])
    assert found == Candidates(("avx512", "avx512-256"), prefill, decode)
    assert found.most_threads == max(prefill + decode)


class Machine:
    """Steps take what `seconds` says, times noise of up to `noise`; time passes only in them."""

    def __init__(self, seconds: Callable[[ExecutionConfig, int], float], noise: float = 0.0) -> None:
        self.seconds, self.noise = seconds, noise
        self.random = random.Random(5)
        self.now = 0.0
        self.steps: list[tuple[ExecutionConfig, int]] = []

    def step(self, way: ExecutionConfig, rows: int) -> float:
        self.steps.append((way, rows))
        taken = self.seconds(way, rows) * self.random.uniform(1, 1 + self.noise)
        self.now += taken
        return taken

    def tune(self, candidates: Candidates) -> Tuning:
        return tune(candidates, self.step, 2.0, lambda: self.now)


EIGHT = Candidates(("avx512", "avx512-256"), (8, 16), (8, 16, 4, 2))


def saturated(way: ExecutionConfig, rows: int) -> float:
    """One row: memory is read at its best by four threads, and others disturb them. Prompts: hyper-threads help."""
    if rows == 1:
        return 0.010 * max(4 / way.threads, 1.0) * (1.05 if way.threads > 4 else 1.0)
    return 0.030 * 8 / way.threads * (1.5 if way.threads > 8 else 1.0)


def test_what_is_clearly_faster_is_chosen() -> None:
    desk = Machine(saturated, noise=0.02)
    found = desk.tune(EIGHT)
    assert (found.isa, found.prefill_threads, found.decode_threads) == ("avx512", 16, 4)
    assert desk.now < 3.0
    four = next(trial for trial in found.trials if (trial.rows, trial.way.threads) == (1, 4))
    assert four.milliseconds == pytest.approx(10.1, abs=0.2) and four.speed == pytest.approx(1.05, abs=0.02)
    assert found.within(EIGHT) and found.most_threads == 16
    chosen, tiles, prompts, one_row = found.lines()
    assert "16 threads for prompts, 4 for answers, vectors of 512 bits" in chosen
    assert chosen.endswith("prompts in tiles of all columns")
    assert tiles.startswith("  256 rows: 16 threads of 512 bits, tiles of all columns, ")
    # Compared with others later, they keep what they were to the default.
    assert "16 threads of 512 bits" in prompts and "(1.3" in prompts
    assert "  one row: 8 threads of 512 bits 10." in one_row and "4 threads of 512 bits 10." in one_row


@pytest.mark.parametrize("gain", [0.97, 1.0, 1.02])
def test_what_is_hardly_faster_is_not(gain: float) -> None:
    found = Machine(lambda way, rows: 0.01 / (1.0 if way.threads == 8 else gain), 0.005).tune(EIGHT)
    assert (found.isa, found.prefill_threads, found.decode_threads) == ("avx512", 8, 8)


def test_noise_is_hardly_ever_taken_for_speed() -> None:
    wrong = 0
    for seed in range(200):
        desk = Machine(lambda way, rows: 0.02, noise=0.5)
        desk.random = random.Random(seed)
        found = desk.tune(EIGHT)
        wrong += (found.isa, found.prefill_threads, found.decode_threads) != ("avx512", 8, 8)
    assert wrong <= 4


@pytest.mark.parametrize(
    ("prefill", "decode", "chosen"),
    [(1.2, 1.0, "avx512-256"), (1.0, 1.1, "avx512-256"), (1.2, 0.9, "avx512"), (1.02, 1.02, "avx512")],
)
def test_one_width_for_both_and_only_where_neither_loses(prefill: float, decode: float, chosen: str) -> None:
    def seconds(way: ExecutionConfig, rows: int) -> float:
        return 0.01 / ((decode if rows == 1 else prefill) if way.isa == "avx512-256" else 1.0)

    assert Machine(seconds).tune(EIGHT).isa == chosen


@pytest.mark.parametrize(("isa", "gain", "chosen"), [("avx2", 1.1, 4096), ("avx512", 1.1, 1024), ("avx2", 1.02, 1024)])
def test_tiles_that_are_clearly_faster_are_chosen(isa: str, gain: float, chosen: int) -> None:
    def seconds(way: ExecutionConfig, rows: int) -> float:
        return 0.01 / (gain if way.prompt_columns == (4096 if isa == "avx2" else 1024) else 1.0)

    desk = Machine(seconds, noise=0.01)
    found = desk.tune(Candidates((isa,), (4,), (4,)))
    assert (found.isa, found.decode_threads, found.prompt_columns) == (isa, 4, chosen)
    # Threads and width had nothing to choose from, and only prompts have such tiles.
    assert {(way.threads, rows) for way, rows in desk.steps} == {(4, 256)}


def test_slow_steps_are_repeated_no_more_than_needed() -> None:
    desk = Machine(lambda way, rows: 1.0)
    assert desk.tune(EIGHT).decode_threads == 8
    # A warm-up and seven rounds of each contest: two and four threads, two widths twice, two kinds of tiles.
    assert len(desk.steps) == 8 * (2 + 4 + 2 + 2 + 2)


def tuned(**changes: object) -> Tuning:
    trial = Trial(1, ExecutionConfig("avx512", 4, 0), 1.5, 1.1, 1.05)
    values = {"isa": "avx512", "prefill_threads": 8, "decode_threads": 4, "prompt_columns": 0, "trials": (trial,)}
    return Tuning(**{"version": tuning.VERSION, "date": "2026-11-24", **values, **changes})


def test_remembered_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    assert tuning.load(path, EIGHT) is None
    tuning.save(path, tuned())
    assert tuning.load(path, EIGHT) == tuned()
    # Never taken for a machine or a wish it was not measured for.
    assert tuning.load(path, Candidates(("avx2",), (8,), (8, 4))) is None
    assert tuning.load(path, Candidates(("avx512",), (8,), (8, 2))) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: "",
        lambda text: text.replace('"avx512"', '"sse9"', 1),
        lambda text: text[::-1].replace('"215xva"', '"9ess"', 1)[::-1],
        lambda text: text.replace('"prefill_threads": 8', '"prefill_threads": 800000'),
        lambda text: text.replace('"prefill_threads": 8', '"prefill_threads": "8"'),
        lambda text: text.replace('"prompt_columns": 0', '"prompt_columns": 513'),
        lambda text: text.replace('"version": 2', '"version": 3'),
        lambda text: text.replace("1.5", "NaN"),
        lambda text: "[" * 100_000,
        lambda text: text.replace('"date"', '"day"'),
    ],
)
def test_a_damaged_file_is_ignored(damage: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    tuning.save(path, tuned())
    text = path.read_text()
    assert damage(text) != text
    path.write_text(damage(text))
    assert tuning.load(path, EIGHT) is None


def test_writers_at_once_leave_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    both = [tuned(), tuned(decode_threads=2, trials=(Trial(1, ExecutionConfig("avx512", 2, 0), 1.0, 1.2, 1.1),) * 50)]
    tuning.save(path, both[0])
    writers = [threading.Thread(target=lambda t=t: [tuning.save(path, t) for _ in range(100)]) for t in both]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert tuning.load(path, EIGHT) in both
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tuning.save(tmp_path / "file" / "below.json", tuned())


def test_place_is_of_machine_kernels_and_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = [(256, 512, "Q4_K"), (512, 256, "Q6_K")]
    places = {tuning.place(machine(8), EIGHT, matrices)}
    assert places == {tuning.place(machine(8), EIGHT, matrices)}
    for where in (machine(4), machine(8, per_core=2), machine(8, nodes=2), machine(8, quota=4.0)):
        places.add(tuning.place(where, EIGHT, matrices))
    places.add(tuning.place(machine(8), Candidates(("avx512",), (8,), (8,)), matrices))
    places.add(tuning.place(machine(8), EIGHT, matrices[1:]))
    with monkeypatch.context() as patch:
        patch.setattr(topology, "cpu_name", lambda: "another")
        places.add(tuning.place(machine(8), EIGHT, matrices))
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "sources_digest", lambda: "another")
        places.add(tuning.place(machine(8), EIGHT, matrices))
    assert len(places) == 9


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two cores with hyper-threads (in truth CPUs of this one), and its folder of tunings."""
    cpus = itertools.cycle(allowed_cpus())
    cores = tuple(Core((next(cpus), next(cpus)), 0, 0) for _ in range(2))
    found = Topology(cores, (Node(0, 0),), (), allowed_cpus())
    monkeypatch.setattr(topology, "read", lambda: found)
    monkeypatch.setattr(tuning, "folder", lambda: tmp_path / "tuning")
    monkeypatch.setattr(cpu_time, "cpu_seconds", lambda cpus: 0.0)
    monkeypatch.delenv("SEVENTY_ISA", raising=False)
    return tmp_path / "tuning"


def prompt_columns(model: Model) -> set[int]:
    """What the kernels are told."""
    products = [each for each in model.program._operations if "matmul" in each.kernel.builder]
    assert products
    return {int(each.block[matmul.ARGUMENTS.index("prompt_columns")]) for each in products}


def test_a_model_that_loads_fast_is_not_measured(tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seventy.engine.model.Trials", None)
    with Model(tiny, context=256) as model:
        assert (model.tuning, model.tuning_seconds, model.threads) == (None, 0.0, 2)
        assert prompt_columns(model) == {tuning.columns(isa.select().name)[0]}
    assert not here.exists()


def test_a_model_is_measured_once_and_remembers(tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "LEAST_LOADING_SECONDS", 0.0)
    told = []
    with LLM(tiny, threads=1, context=512) as llm:
        assert llm.model.tuning is None and not here.exists()
        expected = llm.logits(TOKENS)
    with Model(tiny, context=512, progress=lambda what, done, total: told.append(what)) as model:
        assert model.tuning is not None and model.tuning_seconds > 0
        tried = {(trial.rows, trial.way.isa, trial.way.threads) for trial in model.tuning.trials}
        best = isa.select()
        assert tried >= {(rows, best.name, threads) for rows in (1, 64) for threads in (2, 4)}
        assert (1, best.name, 1) in tried
        assert {name for _, name, _ in tried} == {level.name for level in isa.choices()}
        tiles = {trial.way.prompt_columns for trial in model.tuning.trials if trial.rows == 256}
        assert tiles >= set(tuning.columns(model.tuning.isa))
        assert model.cache.free_pages == model.cache.n_pages
    assert "trying threads, vector width and tiles" in told
    file, = here.iterdir()
    # Nothing is measured a second time; what the file says is done.
    monkeypatch.setattr("seventy.engine.model.Trials", None)
    data = json.loads(file.read_text())
    other = isa.choices()[-1].name
    data |= {"isa": other, "prefill_threads": 4, "decode_threads": 1, "prompt_columns": tuning.columns(other)[-1]}
    file.write_text(json.dumps(data))
    with LLM(tiny, context=512) as llm:
        assert llm.model.isa == isa.choices()[-1] and llm.model.tuning_seconds == 0
        assert prompt_columns(llm.model) == {tuning.columns(other)[-1]}
        assert [llm.model.threads_for(rows) for rows in (1, 2, 31, 32, 256)] == [1, 2, 2, 4, 4]
        tuned = llm.logits(TOKENS)
    # Threads change nothing; another width adds in another order.
    with LLM(tiny, threads=3, context=512, isa=isa.choices()[-1].name) as llm:
        assert np.array_equal(llm.logits(TOKENS), tuned)
    np.testing.assert_allclose(tuned, expected, rtol=0, atol=0.01 * np.abs(expected).max())


def test_a_damaged_file_is_written_anew(tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SECONDS", 0.0)
    for _ in range(2):
        with Model(tiny, context=64, tune=True) as model:
            assert model.tuning is not None
        file, = here.iterdir()
        file.write_text("{")
    monkeypatch.setattr(tuning, "LEAST_LOADING_SECONDS", 0.0)
    with Model(tiny, context=64) as model:
        assert model.tuning is not None and model.tuning.trials
        kept = json.loads(file.read_text())
        assert kept["version"] == tuning.VERSION and kept["isa"] == model.tuning.isa
        assert [trial["milliseconds"] for trial in kept["trials"]] == [t.milliseconds for t in model.tuning.trials]


def test_while_others_work_nothing_is_chosen(tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = itertools.count(step=100)
    monkeypatch.setattr(cpu_time, "cpu_seconds", lambda cpus: float(next(used)))
    with Model(tiny, context=64, tune=True) as model:
        assert model.tuning is None and model.disturbing_cpus > 1
        assert (model.isa, model.threads) == (isa.select(), 2)
        assert prompt_columns(model) == {tuning.columns(isa.select().name)[0]}
    assert not here.exists()


def test_an_isa_that_was_asked_for_is_kept(tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Model(tiny, context=64, isa_name="generic", tune=True) as model:
        assert model.isa.name == "generic" and model.tuning is not None
        assert {trial.way.isa for trial in model.tuning.trials} == {"generic"}
    monkeypatch.setenv("SEVENTY_ISA", "avx")
    assert [level.name for level in isa.choices()] == ["avx"]
