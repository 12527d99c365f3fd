from seventy.jit.compiler import Library
from seventy.jit.isa import supported
from seventy.machine.measure import read_bandwidth, walks


def test_reads_with_more_threads_than_cores() -> None:
    for isa in (supported()[0], supported()[-1]):
        assert read_bandwidth(Library(isa), threads=5, seconds=0, nbytes=32 << 20) > 0


def test_chunks_are_whole_steps() -> None:
    for lanes in (4, 8, 16):
        for walk in walks(lanes):
            assert walk.chunk_bytes % walk.pattern.step_bytes == 0
