import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa, supported
from seventy.kernels.bandwidth import ARGUMENTS, Pattern
from seventy.measure.rates import read_patterns
from tests.support.call import call

PATTERNS = [Pattern(4), Pattern(8, streams=2, lines=2), Pattern(8, streams=4, lines=4, ahead=1024)]


@pytest.mark.parametrize("isa", supported(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_sums_every_word_once(isa: Isa, threads: int) -> None:
    for pattern in dict.fromkeys([*PATTERNS, *(pattern.loads for pattern in read_patterns(isa.lanes))]):
        chunks, chunk = 7, 6 * pattern.step_bytes
        buffer = np.random.default_rng(1).integers(0, 2**32, chunks * chunk // 4, np.uint32)
        sums, arrived = np.zeros(threads, np.uint32), np.zeros(1, np.int64)
        call(
            isa,
            Kernel("seventy.kernels.bandwidth:build", (pattern,)),
            ARGUMENTS,
            threads,
            buffer=buffer,
            chunks=chunks,
            chunk_bytes=chunk,
            arrived=arrived,
            sums=sums,
        )
        assert sums.sum(dtype=np.uint32) == buffer.sum(dtype=np.uint32)
