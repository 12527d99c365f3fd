"""Machines of several nodes, which are in truth this one: what is where may change speed, never results."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from seventy import LLM
from seventy.engine import model
from seventy.formats import PANEL
from seventy.gguf.file import GGUF
from seventy.graph import weights
from seventy.graph.weights import Weights
from seventy.machine import memory, topology
from seventy.machine.topology import Core, Node, Topology, allowed_cpus
from tests.support.tiny import write_tiny

TOKENS = list(b"One box, the household or the office on it.") * 8


def machine(nodes: int) -> Topology:
    """Two cores a node."""
    cpus = allowed_cpus()
    cores = tuple(Core((cpus[i % len(cpus)],), node, node) for i in range(2) for node in range(nodes))
    return Topology(cores, tuple(Node(i, 0) for i in range(nodes)), (), cpus)


@pytest.mark.parametrize("nodes", [2, 3, 9])
def test_nodes_do_not_change_the_result(nodes: int, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM(tiny, threads=2, context=512) as llm:
        want = llm.logits(TOKENS)
    monkeypatch.setattr(topology, "read", lambda: machine(nodes))
    spread: list[Sequence[int]] = []
    monkeypatch.setattr(model, "interleave", lambda area, over: spread.append(over))
    for threads in (1, 2, 5, None):
        with LLM(tiny, threads=threads, context=512) as llm:
            assert len(llm.model.program.weights.nodes) == (nodes if nodes <= 8 else 1)
            assert np.array_equal(llm.logits(TOKENS), want)
    # The cache and every buffer, on every node.
    assert len(spread) > 20 and set(map(tuple, spread)) == {tuple(range(nodes))}


def test_one_node_costs_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "read", lambda: machine(1))
    monkeypatch.setattr(model, "interleave", None)
    monkeypatch.setattr(weights, "pin_thread", None)
    with LLM(tiny, context=64) as llm:
        assert llm.model.program.weights.nodes == ((),)


def test_each_panel_is_packed_once_by_a_thread_of_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_READ_BYTES", 8000)
    path = write_tiny(tmp_path / "model.gguf", "qwen3moe")
    with GGUF(path) as file:
        for nodes in (1, 2, 3, 8):
            loaded = Weights(file, [()] * nodes)
            shapes = {"token_embd.weight": (1, 259, 256), "blk.0.ffn_down_exps.weight": (8, 256, 256)}
            for name, (experts, *shape) in shapes.items():
                matrix = loaded.matrix(name, *shape) if experts == 1 else loaded.experts(name, experts, *shape)
                chunks = [
                    (expert, (node, first, count))
                    for node in range(nodes) for found, expert, first, count in loaded._chunks(node) if found is matrix
                ]  # fmt: skip
                each = [[chunk for found, chunk in chunks if found == expert] for expert in range(experts)]
                assert all(other == each[0] for other in each) and sum(map(len, each)) == len(chunks)
                covered = each[0]
                rows = [row for _, first, count in covered for row in range(first, first + count)]
                assert rows == list(range(shape[0]))
                for node, first, count in covered:
                    # As kernels/abi.py splits panels among nodes.
                    last = (first + count - 1) // PANEL
                    assert matrix.panels * node // nodes <= first // PANEL <= last < matrix.panels * (node + 1) // nodes
    stayed = []
    monkeypatch.setattr(weights, "pin_thread", lambda cpus: stayed.append(tuple(cpus)))
    monkeypatch.setattr(topology, "read", lambda: machine(2))
    with LLM(path, threads=4, context=64) as llm:
        assert len(llm.model.program.weights.nodes) == 2
    assert set(stayed) == set(machine(2).node_cpus())


def test_interleaving_asks_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    area = memory.allocate(10 << 20)
    asked = []

    class Libc:
        answer = 0

        @classmethod
        def syscall(cls, *arguments: object) -> int:
            asked.append([list(a) if isinstance(a, ctypes.Array) else a.value for a in arguments])
            return cls.answer

    with monkeypatch.context() as patch:
        patch.setattr(memory.ctypes, "CDLL", lambda name: Libc)
        patch.setattr(memory.platform, "machine", lambda: "x86_64")
        assert memory.interleave(area, [0, 2])
        assert memory.interleave(area, [1, 70])
        Libc.answer = -1
        assert not memory.interleave(area, [0, 1])
        patch.setattr(memory.platform, "machine", lambda: "aarch64")
        assert not memory.interleave(area, [0, 1])
    start, length = area.ctypes.data, area.nbytes
    assert asked[:2] == [[237, start, length, 3, [5], 65, 0], [237, start, length, 3, [2, 1 << 6], 129, 0]]
    assert len(asked) == 3


def test_the_system_takes_it() -> None:
    area = memory.allocate(10 << 20)
    maps = Path("/proc/self/numa_maps")
    if not memory.interleave(area, [0]) or not maps.exists():
        pytest.skip("this system has no NUMA, or does not let a process choose")
    line = next(line for line in maps.read_text().splitlines() if line.startswith(f"{area.ctypes.data:x} "))
    assert line.split()[1] == "interleave:0"
