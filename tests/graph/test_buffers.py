import random
from itertools import pairwise

from seventy.graph.buffers import Access, Memory, barriers, place


def test_barriers_stand_where_something_is_read_after_it_was_written() -> None:
    a, b, c = Memory(64), Memory(64), Memory(64)
    steps = [
        Access((), (a,)),
        Access((), (b,)),
        # Reads both: waits.
        Access((a, b), (c,)),
        Access((a,), (b,)),
        Access((c,), ()),
    ]
    # The fourth writes what the third reads, and nothing has waited since.
    assert barriers(steps) == [False, False, True, True, False]


def test_two_results_alive_at_once_never_share() -> None:
    """Of one width and kind, which a program once took for the same."""
    x, first, second, out = (Memory(4096) for _ in range(4))
    x.kept = True
    place([Access((), (x,)), Access((x,), (first,)), Access((x,), (second,)), Access((first, second), (out,))])
    addresses = {memory.address for memory in (x, first, second, out)}
    assert len(addresses) == 4


def test_memory_is_used_again_where_a_barrier_stands_between() -> None:
    rows = [Memory(1000 * (i + 1)) for i in range(10)]
    chain = [Access((before,), (after,)) for before, after in pairwise(rows)]
    areas = place([Access((), (rows[0],)), *chain])
    assert sum(area.nbytes for area in areas) < sum(memory.nbytes for memory in rows) / 2


def test_random_programs_keep_every_value_until_it_is_read() -> None:
    """Runs programs whose operations are numbered writes, in any order within a barrier."""
    rng = random.Random(7)
    for _ in range(200):
        memories: list[Memory] = []
        steps: list[Access] = []
        for _ in range(rng.randrange(2, 30)):
            reads = tuple(rng.sample(memories, min(len(memories), rng.randrange(3))))
            writes = Memory(8 * rng.randrange(1, 9), kept=rng.random() < 0.1)
            memories.append(writes)
            steps.append(Access(reads, (writes,)))
        place(steps)
        waits = barriers(steps)
        groups: list[list[int]] = []
        for i, wait in enumerate(waits):
            if wait or not groups:
                groups.append([])
            groups[-1].append(i)
        for group in groups:
            for i in rng.sample(group, len(group)):
                for memory in steps[i].reads:
                    assert isinstance(memory, Memory) and memory.place is not None
                    assert (memory.place == memories.index(memory) + 1).all()
                mine = steps[i].writes[0]
                assert isinstance(mine, Memory) and mine.place is not None
                mine.place[:] = i + 1
        for memory in memories:
            assert memory.place is not None
            assert not memory.kept or (memory.place == memories.index(memory) + 1).all()
