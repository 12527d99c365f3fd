from pathlib import Path

from seventy.machine import cgroup
from tests.support import trees

V2 = {"sys/fs/cgroup/cgroup.controllers": "cpu memory", "proc/self/cgroup": "0::/slice/box"}
V1 = {"proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/a\n1:cpu,cpuacct:/docker/a\n0::/"}


def test_no_limits(tmp_path: Path) -> None:
    assert cgroup.cpu_quota(tmp_path) is None
    assert cgroup.memory_free(tmp_path) is None
    files = {"cpu.max": "max 100000", "memory.max": "max", "memory.current": 5}
    trees.write(tmp_path, V2 | {f"sys/fs/cgroup/slice/box/{name}": text for name, text in files.items()})
    assert cgroup.cpu_quota(tmp_path) is None
    assert cgroup.memory_free(tmp_path) is None


def test_a_parent_limits(tmp_path: Path) -> None:
    trees.write(tmp_path, V2 | {"sys/fs/cgroup/slice/cpu.max": "150000 100000"})
    trees.write(tmp_path, {"sys/fs/cgroup/slice/box/cpu.max": "400000 100000"})
    assert cgroup.cpu_quota(tmp_path) == 1.5


def test_page_cache_is_free(tmp_path: Path) -> None:
    stat = "anon 100\nfile 860\ninactive_file 600\nactive_file 200\nshmem 60"
    files = {"memory.max": 1000, "memory.current": 960, "memory.stat": stat}
    trees.write(tmp_path, V2 | {f"sys/fs/cgroup/slice/box/{name}": text for name, text in files.items()})
    assert cgroup.memory_free(tmp_path) == 840


def test_version_1(tmp_path: Path) -> None:
    files = {
        "cpu/docker/a/cpu.cfs_quota_us": 200000,
        "cpu/docker/a/cpu.cfs_period_us": 100000,
        "cpu/cpu.cfs_quota_us": -1,
        "cpu/cpu.cfs_period_us": 100000,
        "memory/docker/a/memory.limit_in_bytes": 1000,
        "memory/docker/a/memory.usage_in_bytes": 700,
        "memory/docker/a/memory.stat": "inactive_file 1\nactive_file 1\ntotal_inactive_file 10\ntotal_active_file 20",
        "memory/memory.limit_in_bytes": 9223372036854771712,
        "memory/memory.usage_in_bytes": 10,
    }
    trees.write(tmp_path, V1 | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert cgroup.cpu_quota(tmp_path) == 2
    assert cgroup.memory_free(tmp_path) == 330


def test_the_hosts_path_in_a_container(tmp_path: Path) -> None:
    trees.write(tmp_path, V2 | {"sys/fs/cgroup/cpu.max": "300000 100000"})
    assert cgroup.cpu_quota(tmp_path) == 3
