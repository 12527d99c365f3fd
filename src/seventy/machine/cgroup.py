"""Limits of the control group (a container, a systemd slice) this process is in, version 2 and 1.

Every group above it counts too. In a container the path in /proc may be the host's, which is not mounted: then the
root of the mount is the group. https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the process's group and those above it; `controller` is '' for version 2."""
    mount = root / "sys/fs/cgroup"
    if controller:
        mount /= controller
    elif not (mount / "cgroup.controllers").exists():
        mount /= "unified"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            group = mount / path.lstrip("/")
            while group != mount:
                if group.is_dir():
                    yield group
                group = group.parent
            yield mount


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many CPUs' time the group may use, or None if it is unlimited."""
    quotas = []
    for group in _groups(root, ""):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            quotas.append(int(quota) / int(period))
    for group in _groups(root, "cpu"):
        limit, length = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if limit is not None and length and limit > 0:
            quotas.append(limit / length)
    return min(quotas, default=None)


def memory_free(root: Path = ROOT) -> int | None:
    """Return the bytes the group may still allocate, including reclaimable page cache; None if it is unlimited."""
    free = []
    for controller, limit_file, usage_file in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for group in _groups(root, controller):
            limit, used = _number(group / limit_file), _number(group / usage_file)
            # Version 1 writes "no limit" as the largest number of whole pages.
            if limit is not None and used is not None and limit < 1 << 62:
                free.append(max(0, limit - used + _page_cache(group / "memory.stat")))
    return min(free, default=None)


def _page_cache(stat: Path) -> int:
    """Bytes of files in memory, those of groups below included."""
    try:
        counts = dict(line.split() for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    prefix = "total_" if "total_inactive_file" in counts else ""
    return sum(int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
