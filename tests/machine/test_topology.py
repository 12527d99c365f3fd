import os
from pathlib import Path

import pytest

from seventy.machine import topology
from seventy.machine.topology import Core, Node
from tests.support import trees


def test_dual_socket_with_hyperthreads(tmp_path: Path) -> None:
    found = topology.read(trees.write(tmp_path, trees.cpus(trees.DUAL)), range(16))
    assert (found.sockets, len(found.cores), found.threads_per_core) == (2, 8, 2)
    assert found.cores[5] == Core((5, 13), 1, 1)
    assert found.nodes == (Node(0, 32 << 30), Node(1, 32 << 30))
    assert found.last_level_cache_bytes == 40 << 20
    assert len(found.caches) == 16 + 2
    assert topology.physical_cores(tmp_path, range(16)) == list(range(8))


def test_affinity_takes_cores_away(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.cpus(trees.DUAL))
    # Core 1 is left with its second thread only.
    assert topology.physical_cores(tmp_path, [0, 2, 8, 9, 10]) == [0, 9, 2]
    assert topology.read(tmp_path, [12]).usable == (Core((12,), 1, 1),)


def test_single_socket(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.cpus(trees.SINGLE))
    assert topology.physical_cores(tmp_path, range(8)) == [0, 2, 4, 6]


def test_offline_cpus_are_no_cores(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.cpus(trees.SINGLE, online="0,2-4,6"))
    found = topology.read(tmp_path, [0, 2, 3, 4, 6])
    assert [core.cpus for core in found.cores] == [(0,), (2, 3), (4,), (6,)]


def test_hybrid_by_its_counters(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.cpus(trees.HYBRID))
    trees.write(tmp_path, {"sys/devices/cpu_core/cpus": "0-3", "sys/devices/cpu_atom/cpus": "4-7"})
    found = topology.read(tmp_path, range(8))
    assert [core.kind for core in found.cores] == ["performance"] * 2 + ["efficiency"] * 4


def test_hybrid_by_capacity(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.cpus([(0, cpu, 0) for cpu in range(4)]))
    capacity = {f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": c for cpu, c in enumerate((1024, 1000, 500, 500))}
    found = topology.read(trees.write(tmp_path, capacity), range(4))
    assert [core.kind for core in found.cores] == ["performance", "performance", "efficiency", "efficiency"]
    capacity = dict.fromkeys(capacity, 1010)
    assert topology.read(trees.write(tmp_path, capacity), range(4)).cores[0].kind == ""


def test_files_missing(tmp_path: Path) -> None:
    trees.write(tmp_path, {"sys/devices/system/cpu/online": "0-3"})
    found = topology.read(tmp_path, range(4))
    assert [core.cpus for core in found.cores] == [(0,), (1,), (2,), (3,)]
    assert (found.nodes, found.caches, found.last_level_cache_bytes) == ((Node(0, 0),), (), 0)


def test_nothing_there_as_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology.psutil, "cpu_count", lambda logical: 4)
    assert len(topology.physical_cores(tmp_path, range(8))) == 4
    monkeypatch.setattr(topology.psutil, "cpu_count", lambda logical: None)
    assert topology.physical_cores(tmp_path, range(3)) == [0, 1, 2]
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    assert topology.allowed_cpus() == tuple(range(os.cpu_count() or 1))
    assert topology.pin_thread({0}) == {0}
    assert topology.cpu_name(tmp_path)


def test_two_dies_that_number_cores_alike(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.cpus([(0, 0, 0), (0, 0, 0)]))
    trees.write(tmp_path, {f"sys/devices/system/cpu/cpu{cpu}/topology/die_id": cpu for cpu in range(2)})
    assert topology.physical_cores(tmp_path, range(2)) == [0, 1]


def test_quota_limits_cores(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.cpus(trees.DUAL))
    trees.write(tmp_path, {"proc/self/cgroup": "0::/box", "sys/fs/cgroup/cgroup.controllers": "cpu"})
    trees.write(tmp_path, {"sys/fs/cgroup/box/cpu.max": "350000 100000"})
    assert topology.physical_cores(tmp_path, range(16)) == [0, 1, 2]
    trees.write(tmp_path, {"sys/fs/cgroup/box/cpu.max": "50000 100000"})
    assert topology.physical_cores(tmp_path, range(16)) == [0]


def test_name(tmp_path: Path) -> None:
    trees.write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)   E5-2680 v4\n"})
    assert topology.cpu_name(tmp_path) == "Intel(R) Xeon(R) E5-2680 v4"


def test_list() -> None:
    assert topology.parse_list("0-3,8,10-11\n") == (0, 1, 2, 3, 8, 10, 11)
    assert topology.parse_list("\n") == ()


def test_spread(tmp_path: Path) -> None:
    found = topology.read(trees.write(tmp_path / "dual", trees.cpus(trees.DUAL)), range(16))
    assert found.spread() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert [found.node_of(cpu) for cpu in (0, 12, 99)] == [0, 1, 0]
    trees.write(tmp_path / "hybrid", trees.cpus(trees.HYBRID))
    trees.write(tmp_path / "hybrid", {"sys/devices/cpu_core/cpus": "4-7", "sys/devices/cpu_atom/cpus": "0-3"})
    assert topology.read(tmp_path / "hybrid", range(8)).spread() == [4, 5, 6, 7, 0, 2]


def test_threads_take_physical_cores_first_and_hyperthreads_last(tmp_path: Path) -> None:
    trees.write(tmp_path / "dual", trees.cpus(trees.DUAL))
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    assert topology.read(tmp_path / "dual", range(16)).cpus_for(16) == order + [cpu + 8 for cpu in order]
    # CPU 8 is the second thread of core 0, whose first one this process may not use.
    assert topology.read(tmp_path / "dual", [1, 4, 8, 9]).cpus_for(6) == [4, 8, 1, 9, 4, 8]
    trees.write(tmp_path / "hybrid", trees.cpus(trees.HYBRID))
    trees.write(tmp_path / "hybrid", {"sys/devices/cpu_core/cpus": "0-3", "sys/devices/cpu_atom/cpus": "4-7"})
    assert topology.read(tmp_path / "hybrid", range(8)).cpus_for(8) == [0, 2, 4, 5, 6, 7, 1, 3]
