"""The whole measurement of this machine: memory, arithmetic, disk; under a minute."""

from collections.abc import Callable
from pathlib import Path

from seventy.errors import SeventyError
from seventy.jit.compiler import Library
from seventy.jit.isa import Isa
from seventy.language import t, tn
from seventy.machine import disk, topology
from seventy.machine.topology import Topology
from seventy.measure import profile, rates
from seventy.measure.profile import Bandwidth, Profile

Progress = Callable[[str], None]
_MEMORY_SECONDS = 16.0
_DISK_BYTES = 1 << 30


def thread_counts(cores: int) -> list[int]:
    """List the thread counts to measure: 1, 2, 4 ... and all cores."""
    counts = [1 << i for i in range(cores.bit_length()) if 1 << i < cores]
    return [*counts, cores]


def memory(library: Library, machine: Topology, progress: Progress, nbytes: int | None = None) -> list[Bandwidth]:
    """Read bandwidth over thread counts, of each node alone and across nodes, and with hyper-threads."""
    cores = machine.spread()
    here = {node: [cpu for cpu in cores if machine.node_of(cpu) == node] for node in map(machine.node_of, cores)}
    # What is read: threads a core, CPUs, and the node whose memory they read (None: each its own).
    plan: list[tuple[int, list[int], int | None]] = [(1, cores[:count], None) for count in thread_counts(len(cores))]
    if len(here) > 1:
        plan += [(1, cpus, node) for cpus in here.values() for node in here]
    if machine.threads_per_core > 1:
        everything = [cpu for core in machine.usable for cpu in core.cpus]
        plan.append((machine.threads_per_core, everything, None))
    memories = rates.node_memories(machine, nbytes or rates.buffer_bytes(machine))
    rows = []
    for per_core, cpus, node in plan:
        progress(tn("reading memory with {n} thread", "reading memory with {n} threads", n=len(cpus)))
        if node is None:
            areas = rates.local_areas(machine, memories, cpus)
        else:
            areas = [rates.Area(memories[node], cpus)]
        nodes = tuple(sorted({machine.node_of(cpu) for cpu in cpus}))
        samples = rates.read_samples(library, areas, min(3.0, _MEMORY_SECONDS / len(plan)))
        rows.append(profile.bandwidth(samples, len(cpus), per_core, nodes, nodes if node is None else (node,)))
    return rows


def arithmetic(levels: list[Isa], machine: Topology, progress: Progress) -> tuple[dict[str, float], float]:
    """Measure int8 GOPS by ISA level, and float GFLOPS at the highest, on all usable cores."""
    cpus = [core.cpus[0] for core in machine.usable]
    gops = {}
    for isa in levels:
        progress(t("multiplying bytes with {name}", name=isa.name))
        gops[isa.name] = round(rates.int8_peak(Library(isa), cpus, 0.7), 1)
    return gops, round(rates.float_peak(Library(levels[-1]), cpus, 0.7), 1)


def disk_rate(folder: Path, progress: Progress) -> float | None:
    """Measure the GB/s at which a file in this folder is read; None if none can be written there."""
    progress(t("reading from the disk of {folder}", folder=folder))
    try:
        with disk.scratch_file(folder, _DISK_BYTES) as path:
            return round(disk.read_rate(path), 3)
    except SeventyError:
        return None


def measure_all(levels: list[Isa], folder: Path, progress: Progress) -> Profile:
    """Measure everything at these ISA levels, the lowest first; `folder` is where models lie."""
    machine = topology.read()
    rows = memory(Library(levels[-1]), machine, progress)
    gops, gflops = arithmetic(levels, machine, progress)
    return profile.describe(levels[-1].name, rows, gops, gflops, disk_rate(folder, progress))
