"""The CPUs this process may use."""

import os
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


def pin_thread(cpus: Collection[int]) -> Collection[int]:
    """Keeps the calling thread on these CPUs, where the system can; returns those it was on."""
    if not hasattr(os, "sched_setaffinity"):
        return cpus
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    return before
