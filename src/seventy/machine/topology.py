"""The CPUs this process may use."""

import os
import platform
import re
from collections.abc import Collection
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")


def allowed_cpus() -> list[int]:
    """Logical CPUs in the process's affinity mask, or all of them where the system has no such mask."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _quota(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Whole CPUs' worth of time the control group grants, or None where it grants all."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


def physical_cores(root: Path = _CPUS) -> list[int]:
    """One logical CPU of each allowed physical core, in order, as many as the control group's quota allows."""
    seen, cores = set(), []
    for cpu in allowed_cpus():
        folder = root / f"cpu{cpu}" / "topology"
        try:
            core = ((folder / "physical_package_id").read_text(), (folder / "core_id").read_text())
        except OSError:
            core = (str(cpu), "")
        if core not in seen:
            seen.add(core)
            cores.append(cpu)
    return cores[: _quota() or len(cores)]


def cpu_name(root: Path = Path("/proc")) -> str:
    """The CPU as it calls itself."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", (root / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def last_level_cache_bytes(root: Path = _CPUS) -> int:
    """The largest caches of all CPUs this process may use, together; 0 where the system does not say."""
    found: dict[str, tuple[int, int]] = {}
    for cpu in allowed_cpus():
        for folder in (root / f"cpu{cpu}" / "cache").glob("index*"):
            try:
                level, shared = int((folder / "level").read_text()), (folder / "shared_cpu_list").read_text()
                found[f"{level} {shared}"] = level, int((folder / "size").read_text().strip().rstrip("K")) << 10
            except (OSError, ValueError):
                continue
    last = max((level for level, _ in found.values()), default=0)
    return sum(size for level, size in found.values() if level == last)


def pin_thread(cpus: Collection[int]) -> Collection[int]:
    """Keeps the calling thread on these CPUs, where the system can; returns those it was on."""
    if not hasattr(os, "sched_setaffinity"):
        return cpus
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    return before
