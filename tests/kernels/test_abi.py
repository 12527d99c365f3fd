import inspect

import numpy as np
import pytest

from seventy.jit.build import Module
from seventy.jit.compiler import Kernel
from seventy.jit.isa import supported
from seventy.jit.types import pointer
from seventy.kernels import abi
from tests.support.call import call

ARGUMENTS = ("items", "chunk", "nodes", "thread_nodes", "times", "order", "clock")


def build(module: Module, source: str) -> None:
    """Counts how often each item is run, and notes when; `source` only tells the cache one version from another."""
    k = abi.Kernel(module, ARGUMENTS)
    f = k.f
    with k.claim_by_node(k("items"), k("chunk"), k("nodes"), k("thread_nodes", pointer)) as (first, limit):
        last = (first + k("chunk")).minimum(limit)
        with f.loop(first, last) as item:
            f.atomic_add(k("times", pointer) + item * 8, 1)
            f.store(f.atomic_add(k("clock", pointer), 1), k("order", pointer) + item * 8)


def run(items: int, chunk: int, nodes: int, thread_nodes: list[int], threads: int) -> tuple[list[int], list[int]]:
    """How often each item was run, and the items in the order they were run in."""
    times, order = np.zeros(items, np.int64), np.zeros(items, np.int64)
    call(
        supported()[-1], Kernel("tests.kernels.test_abi:build", (inspect.getsource(build),)), ARGUMENTS, threads,
        items=items, chunk=chunk, nodes=nodes, thread_nodes=np.array(thread_nodes, np.int64), times=times, order=order,
        clock=np.zeros(1, np.int64),
    )  # fmt: skip
    return times.tolist(), np.argsort(order).tolist()


@pytest.mark.parametrize("nodes", [0, 1, 2, 3, abi.NODES])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_item_is_run_once(nodes: int, threads: int) -> None:
    for items in (0, 1, 2, 7, 100):
        for chunk in (1, 3, 1000):
            # Also where some nodes have no thread at all.
            spread = [i % max(1, nodes) for i in range(threads)]
            for thread_nodes in ([0] * threads, spread, [max(1, nodes) - 1] * threads):
                assert run(items, chunk, nodes, thread_nodes, threads)[0] == [1] * items


def test_a_thread_begins_at_home_and_then_helps_the_others() -> None:
    assert run(10, 3, 2, [0], 1)[1] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert run(10, 3, 2, [1], 1)[1] == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
    assert run(10, 2, 3, [1], 1)[1] == [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    # Homes are not read where there is one node: the address may be none.
    assert run(3, 1, 1, [99], 1)[1] == [0, 1, 2]
