import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from seventy.jit.compiler import Library
from seventy.jit.isa import Isa, supported
from seventy.kernels import bandwidth, peak
from seventy.machine import pinned, topology
from seventy.machine.pinned import Call
from seventy.measure import rates
from seventy.measure.rates import read_patterns
from tests.support import trees

# Seconds of a run, and the bytes its threads left in `sums`.
Run = tuple[float, bytes]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, ...], int], list[Run]]:
    """Makes a list of the runs to come of a kernel with these arguments; its sums take so many bytes."""

    def watch(arguments: tuple[str, ...], nbytes: int) -> list[Run]:
        runs: list[Run] = []
        run = pinned.run

        def watched(function: int, calls: Sequence[Call]) -> float:
            seconds = run(function, calls)
            runs.append((seconds, ctypes.string_at(int(calls[0].arguments[arguments.index("sums")]), nbytes)))
            return seconds

        monkeypatch.setattr(pinned, "run", watched)
        return runs

    return watch


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_floats_are_multiplied_than_a_cpu_can(threads: int) -> None:
    library = Library(supported()[-1])
    gflops = rates.float_peak(library, [0] * threads, seconds=0)
    # Two threads on one CPU are no more than one, and no CPU has more than two multipliers of 6 GHz.
    assert 0 < gflops <= 2 * 2 * library.isa.lanes * 6


@pytest.mark.parametrize("threads", [1, 5])
def test_each_byte_that_was_read_is_counted_once(
    threads: int, watch: Callable[[tuple[str, ...], int], list[Run]]
) -> None:
    memory = np.ones(32 << 20, np.uint8)
    runs = watch(bandwidth.ARGUMENTS, 4 * (threads + 1))
    # One area is read by one thread, the other by more of them than there are cores.
    areas = [rates.Area(memory[: 16 << 20], [0]), rates.Area(memory, [0] * threads)]
    for level in (supported()[0], supported()[-1]):
        for pattern in read_patterns(level.lanes):
            gbs = rates.read_once(Library(level), pattern, areas)
            seconds, sums = runs.pop()
            nbytes = round(gbs * 1e9 * seconds)
            assert 0.9 * (48 << 20) <= nbytes <= 48 << 20
            # Each word is 0x01010101.
            assert np.frombuffer(sums, np.uint32).sum(dtype=np.uint32) == nbytes // 4 * 0x01010101 % 2**32


@pytest.mark.parametrize("kind", ["f32", "bytes", "nibbles"])
@pytest.mark.parametrize("level", supported(), ids=lambda level: level.name)
def test_each_product_is_counted_once(
    level: Isa, kind: str, watch: Callable[[tuple[str, ...], int], list[Run]]
) -> None:
    if kind == "nibbles" and level.dot != "maddubs":
        kind = "bytes"
    for lanes in rates.widths(level):
        xs, ys = peak.shape(level.dot == "vnni")
        runs = watch(peak.ARGUMENTS, 2 * xs * ys * 4 * lanes)
        gops, seconds = rates.multiply_once(Library(level), kind, lanes, [0, 0], passes=3)
        ((watched, sums),) = runs
        assert seconds == watched
        # Of ones, a sum is how many products were added.
        products = np.frombuffer(sums, np.float32 if kind == "f32" else np.int32).sum(dtype=np.float64)
        assert gops * seconds * 1e9 == pytest.approx(2 * products)


def test_the_best_of_passes_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = read_patterns(supported()[0].lanes)
    given = iter([*range(1, len(ways) + 1), 50.0])
    monkeypatch.setattr(rates, "read_once", lambda library, pattern, areas: float(next(given, 7.0)))
    samples = rates.read_samples(Library(supported()[0]), [], seconds=-1)
    assert samples.passes == [[float(i + 1)] for i in range(len(ways))]
    assert (samples.best_gbs, samples.typical_gbs) == (len(ways), len(ways))
    assert rates.Samples([[1.0, 9.0, 2.0], [3.0, 4.0, 3.5]]).best_gbs == 9
    assert rates.Samples([[1.0, 9.0, 2.0], [3.0, 4.0, 3.5]]).typical_gbs == 3.5


def test_chunks_are_whole_steps() -> None:
    for lanes in (4, 8, 16):
        for pattern in read_patterns(lanes):
            assert pattern.chunk_bytes % pattern.loads.step_bytes == 0


def test_each_node_reads_its_own(tmp_path: Path) -> None:
    machine = topology.read(trees.write(tmp_path, trees.cpus(trees.DUAL)), range(16))
    memories = {node: np.zeros(64 << 20, np.uint8) for node in (0, 1)}
    one, two = rates.local_areas(machine, memories, [0, 4, 1, 2])
    assert (one.cpus, two.cpus) == ([0, 1, 2], [4])
    assert (len(one.memory), len(two.memory)) == (64 << 20, 16 << 20)
    assert np.shares_memory(two.memory, memories[1])


def test_memory_that_comes_slowly() -> None:
    assert len(rates.touched(80 << 20, [0, 0], seconds=-1)) == 40 << 20
    memory = rates.touched((16 << 20) + 5, [0])
    assert len(memory) == (16 << 20) + 5
    assert memory.all()
