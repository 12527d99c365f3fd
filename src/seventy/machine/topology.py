"""Sockets, NUMA nodes, cores and caches, and which of them this process may use.

Read from Linux's /sys and /proc; where they are absent (Windows, macOS) psutil gives the number of cores.
`root` is the folder that holds sys/ and proc/.
"""

import contextlib
import itertools
import os
import platform
import re
import sys
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from seventy.machine.cgroup import ROOT, cpu_quota

# Linux's nice of what may wait: beside threads that are busy all the time it gets 3 % of a CPU.
_YIELDING = 15
_CPUS = Path("sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Core:
    """A physical core: its online logical CPUs, and where it is. `kind` is 'performance' or 'efficiency' on CPUs
    that have both, else ''.
    """

    cpus: tuple[int, ...]
    socket: int
    node: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A NUMA node; `memory_bytes` is 0 where the system does not say."""

    number: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache and the logical CPUs that share it; `kind` is data, instruction or unified."""

    level: int
    kind: str
    nbytes: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """The machine's online CPUs; `allowed` are the logical CPUs this process may run on, `quota` how many CPUs'
    worth of time it gets (None: no limit).
    """

    cores: tuple[Core, ...]
    nodes: tuple[Node, ...]
    caches: tuple[Cache, ...]
    allowed: tuple[int, ...]
    quota: float | None = None

    @property
    def sockets(self) -> int:
        return len({core.socket for core in self.cores})

    @property
    def threads_per_core(self) -> int:
        return max(len(core.cpus) for core in self.cores)

    @property
    def usable(self) -> tuple[Core, ...]:
        """The cores with an allowed CPU, with only their allowed CPUs; no more cores than the quota."""
        allowed = set(self.allowed)
        cores = [
            Core(cpus, core.socket, core.node, core.kind)
            for core in self.cores
            if (cpus := tuple(cpu for cpu in core.cpus if cpu in allowed))
        ]
        return tuple(cores[: len(cores) if self.quota is None else max(1, int(self.quota))])

    @property
    def last_level_cache_bytes(self) -> int:
        """The caches of the highest level, together; 0 where the system does not say."""
        last = max((cache.level for cache in self.caches), default=0)
        return sum(cache.nbytes for cache in self.caches if cache.level == last)

    def node_of(self, cpu: int) -> int:
        return next((core.node for core in self.cores if cpu in core.cpus), 0)

    def spread(self) -> list[int]:
        """List one logical CPU of each usable core: performance cores first, then taking turns between the last-level
        caches.

        So the first few already reach every memory controller; each chiplet or socket has a limit of its own.
        """
        last = max((cache.level for cache in self.caches), default=0)
        place = {cpu: cache.cpus for cache in self.caches if cache.level == last for cpu in cache.cpus}
        taken: dict[object, int] = {}
        turns = []
        for core in self.usable:
            group = core.node, place.get(core.cpus[0]), core.kind
            turns.append((core.kind == "efficiency", taken.get(group, 0), core.cpus[0]))
            taken[group] = taken.get(group, 0) + 1
        return [cpu for _, _, cpu in sorted(turns)]

    def node_cpus(self) -> tuple[tuple[int, ...], ...]:
        """Return the usable logical CPUs of each NUMA node that has any."""
        nodes = sorted({core.node for core in self.usable})
        return tuple(tuple(cpu for core in self.usable if core.node == node for cpu in core.cpus) for node in nodes)

    def cpus_for(self, threads: int) -> list[int]:
        """Return a logical CPU for each thread: as `spread` orders them, then hyper-threads, then all again."""
        siblings = {core.cpus[0]: core.cpus for core in self.usable}
        order = [(i, cpu) for i in range(self.threads_per_core) for cpu in self.spread() if i < len(siblings[cpu])]
        return [siblings[cpu][i] for i, cpu in itertools.islice(itertools.cycle(order), threads)]


def parse_list(text: str) -> tuple[int, ...]:
    """Parse the kernel's list notation: "0-3,8" is 0, 1, 2, 3, 8."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)


def _text(file: Path) -> str | None:
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return None


def _number(file: Path, default: int) -> int:
    text = _text(file)
    return int(text) if text and text.lstrip("-").isdigit() else default


def allowed_cpus() -> tuple[int, ...]:
    """Return the logical CPUs in the process's affinity mask; all of them on systems without one."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def read(root: Path = ROOT, allowed: Sequence[int] | None = None) -> Topology:
    """Read the machine's topology; `allowed` replaces the process's CPU affinity."""
    allowed = tuple(allowed_cpus() if allowed is None else allowed)
    online = parse_list(_text(root / _CPUS / "online") or "")
    if not online:
        return _without_sysfs(allowed)
    node_of = {cpu: node for node, cpus in _nodes(root).items() for cpu in cpus}
    members: dict[tuple[int, int, int], list[int]] = {}
    for cpu in online:
        folder = root / _CPUS / f"cpu{cpu}/topology"
        # Without a core_id every CPU is a core. A socket numbers its cores anew, and so does a die of some.
        socket = max(0, _number(folder / "physical_package_id", 0))
        key = socket, _number(folder / "die_id", 0), _number(folder / "core_id", -1 - cpu)
        members.setdefault(key, []).append(cpu)
    kinds = _kinds(root, online)
    cores = [
        Core(tuple(cpus), socket, node_of.get(cpus[0], 0), kinds.get(cpus[0], ""))
        for (socket, _, _), cpus in members.items()
    ]
    nodes = [Node(number, _node_memory(root, number)) for number in sorted({*node_of.values()} or {0})]
    return Topology(tuple(cores), tuple(nodes), _caches(root, online), allowed, cpu_quota(root))


def _without_sysfs(allowed: tuple[int, ...]) -> Topology:
    count = min(psutil.cpu_count(logical=False) or len(allowed), len(allowed))
    cores = tuple(Core(allowed[i::count], 0, 0) for i in range(count))
    return Topology(cores, (Node(0, 0),), (), allowed)


def _nodes(root: Path) -> dict[int, tuple[int, ...]]:
    """Nodes that have CPUs; those that are memory only (CXL, HBM) read for nobody."""
    nodes = {}
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        cpus = parse_list(_text(folder / "cpulist") or "")
        if cpus:
            nodes[int(folder.name[4:])] = cpus
    return nodes


def _node_memory(root: Path, number: int) -> int:
    text = _text(root / f"sys/devices/system/node/node{number}/meminfo") or ""
    match = re.search(r"MemTotal:\s*(\d+) kB", text)
    return int(match[1]) << 10 if match else 0


def _kinds(root: Path, online: Collection[int]) -> dict[int, str]:
    """Performance and efficiency cores: Intel has a PMU for each, others differ in capacity."""
    fast = parse_list(_text(root / "sys/devices/cpu_core/cpus") or "")
    slow = parse_list(_text(root / "sys/devices/cpu_atom/cpus") or "")
    if fast and slow:
        return dict.fromkeys(fast, "performance") | dict.fromkeys(slow, "efficiency")
    capacity = {cpu: _number(root / _CPUS / f"cpu{cpu}/cpu_capacity", 1024) for cpu in online}
    # Cores of one kind differ by a few percent where the system ranks them by their best clock.
    border = 0.75 * max(capacity.values())
    if min(capacity.values()) > border:
        return {}
    return {cpu: "performance" if value > border else "efficiency" for cpu, value in capacity.items()}


def _caches(root: Path, online: Collection[int]) -> tuple[Cache, ...]:
    units = {"K": 10, "M": 20, "G": 30}
    found: dict[Cache, None] = {}
    for cpu in online:
        for folder in sorted((root / _CPUS / f"cpu{cpu}/cache").glob("index[0-9]*")):
            size = _text(folder / "size") or ""
            if size[:-1].isdigit() and size[-1] in units:
                cpus = parse_list(_text(folder / "shared_cpu_list") or str(cpu))
                kind = (_text(folder / "type") or "unified").lower()
                found[Cache(_number(folder / "level", 0), kind, int(size[:-1]) << units[size[-1]], cpus)] = None
    return tuple(found)


def physical_cores(root: Path = ROOT, allowed: Sequence[int] | None = None) -> list[int]:
    """List one logical CPU of each physical core this process may use, in order, as many as its quota allows."""
    return [core.cpus[0] for core in read(root, allowed).usable]


def cpu_name(root: Path = ROOT) -> str:
    """Return the CPU's own name."""
    match = re.search(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    if match:
        return " ".join(match[1].split())
    if sys.platform == "win32":
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    return platform.processor() or platform.machine()


def pin_thread(cpus: Collection[int]) -> Collection[int]:
    """Pin the calling thread to these CPUs if the system can; return those it could run on before."""
    if not hasattr(os, "sched_setaffinity"):
        return cpus
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    return before


def yield_to_others() -> None:
    """Let the calling thread run with lower priority than others, for good; nothing where the system cannot."""
    with contextlib.suppress(OSError, AttributeError):
        # Linux has a priority for each thread; elsewhere it would be that of the whole process.
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _YIELDING)


def run_when_idle() -> None:
    """Let the calling thread run only where no other wants to, for good; nothing where the system cannot.

    Whoever wakes takes its CPU at once, and not after some milliseconds as from a thread that only has a low priority.
    Not for work that holds Python's lock.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
