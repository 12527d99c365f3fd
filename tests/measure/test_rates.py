from pathlib import Path

import numpy as np

from seventy.jit.compiler import Library
from seventy.jit.isa import supported
from seventy.machine import topology
from seventy.measure import rates
from seventy.measure.rates import read_bandwidth, walks
from tests.support import trees


def test_reads_with_more_threads_than_cores() -> None:
    for isa in (supported()[0], supported()[-1]):
        assert read_bandwidth(Library(isa), threads=5, seconds=0, nbytes=32 << 20) > 0


def test_chunks_are_whole_steps() -> None:
    for lanes in (4, 8, 16):
        for walk in walks(lanes):
            assert walk.chunk_bytes % walk.pattern.step_bytes == 0


def test_each_node_reads_its_own(tmp_path: Path) -> None:
    machine = topology.read(trees.write(tmp_path, trees.cpus(trees.DUAL)), range(16))
    memories = {node: np.zeros(64 << 20, np.uint8) for node in (0, 1)}
    one, two = rates.local_areas(machine, memories, [0, 4, 1, 2])
    assert (one.cpus, two.cpus) == ([0, 1, 2], [4])
    assert (len(one.memory), len(two.memory)) == (64 << 20, 16 << 20)
    assert np.shares_memory(two.memory, memories[1])


def test_nodes_read_together() -> None:
    memory = np.ones(32 << 20, np.uint8)
    areas = [rates.Area(memory[: 16 << 20], [0]), rates.Area(memory, [0, 0])]
    for walk in walks(16):
        assert rates.read_once(Library(supported()[0]), walk, areas) > 0


def test_int8_and_float_rates() -> None:
    for isa in supported():
        library = Library(isa)
        assert rates.int8_peak(library, [0], seconds=0) > 0
        assert rates.float_peak(library, [0], seconds=0) > 0


def test_memory_that_comes_slowly() -> None:
    assert len(rates.touched(80 << 20, [0, 0], seconds=-1)) == 40 << 20
    memory = rates.touched((16 << 20) + 5, [0])
    assert len(memory) == (16 << 20) + 5
    assert memory.all()
