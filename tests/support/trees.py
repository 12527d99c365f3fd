"""Fake roots of a file system: sys/ and proc/ as the kernel writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def write(root: Path, files: Mapping[str, str | int | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(f"{content}\n")
    return root


def cpus(
    places: Sequence[tuple[int, int, int]], online: str | None = None, l3_bytes: int = 20 << 20
) -> dict[str, str | int]:
    """CPU i is at places[i]: socket, core, node. A socket shares one last-level cache."""
    files: dict[str, str | int] = {"sys/devices/system/cpu/online": online or f"0-{len(places) - 1}"}
    for cpu, (socket, core, _) in enumerate(places):
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        files[f"{folder}/topology/physical_package_id"] = socket
        files[f"{folder}/topology/core_id"] = core
        shared = ",".join(str(i) for i, place in enumerate(places) if place[0] == socket)
        for index, (level, kind, size, sharers) in enumerate(
            [(1, "Data", "32K", cpu), (3, "Unified", f"{l3_bytes >> 10}K", shared)]
        ):
            cache = f"{folder}/cache/index{index}"
            files |= {f"{cache}/level": level, f"{cache}/type": kind, f"{cache}/size": size}
            files[f"{cache}/shared_cpu_list"] = sharers
    for number in {node for _, _, node in places}:
        folder = f"sys/devices/system/node/node{number}"
        files[f"{folder}/cpulist"] = ",".join(str(i) for i, place in enumerate(places) if place[2] == number)
        files[f"{folder}/meminfo"] = f"Node {number} MemTotal:       {32 << 20} kB\nNode {number} MemFree: 5 kB"
    return files


# Two Xeons of four cores with hyper-threads, numbered as Linux does: first one thread of each core.
DUAL = [(cpu // 4 % 2, cpu % 4, cpu // 4 % 2) for cpu in range(16)]
# One socket, two threads a core, neighbours.
SINGLE = [(0, cpu // 2, 0) for cpu in range(8)]
# Two performance cores with two threads each, four efficiency cores.
HYBRID = [(0, 0, 0), (0, 0, 0), (0, 4, 0), (0, 4, 0), (0, 8, 0), (0, 9, 0), (0, 10, 0), (0, 11, 0)]
