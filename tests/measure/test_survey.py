from pathlib import Path

import pytest

from seventy.jit.compiler import Library
from seventy.jit.isa import supported
from seventy.machine import topology
from seventy.measure import rates, survey
from seventy.measure.rates import Area, Samples
from tests.support import trees


def test_thread_counts() -> None:
    assert survey.thread_counts(1) == [1]
    assert survey.thread_counts(2) == [1, 2]
    assert survey.thread_counts(6) == [1, 2, 4, 6]


def test_two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = topology.read(trees.write(tmp_path, trees.cpus(trees.DUAL)), range(16))
    read: list[list[int]] = []

    def sample(library: Library, areas: list[Area], seconds: float) -> Samples:
        read.append([len(area.cpus) for area in areas])
        return Samples([[10.0, 30.0, 20.0], [5.0]])

    monkeypatch.setattr(rates, "read_samples", sample)
    monkeypatch.setattr(topology, "pin_thread", lambda cpus: cpus)
    monkeypatch.setattr(rates, "pin_thread", lambda cpus: cpus)
    rows = survey.memory(Library(supported()[0]), machine, lambda text: None, nbytes=16 << 20)
    assert [(row.threads, row.cpu_nodes, row.memory_nodes) for row in rows] == [
        (1, (0,), (0,)),
        (2, (0, 1), (0, 1)),
        (4, (0, 1), (0, 1)),
        (8, (0, 1), (0, 1)),
        (4, (0,), (0,)),
        (4, (0,), (1,)),
        (4, (1,), (0,)),
        (4, (1,), (1,)),
        (16, (0, 1), (0, 1)),
    ]
    assert read == [[1], [1, 1], [2, 2], [4, 4], [4], [4], [4], [4], [8, 8]]
    assert (rows[-1].per_core, rows[0].best_gbs, rows[0].typical_gbs) == (2, 30.0, 20.0)
