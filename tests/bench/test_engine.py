"""GB/s of the engine stand beside what memory gave: no more than that, and not next to nothing."""

import pytest

from seventy.bench import engine
from seventy.bench.synthetic import Synthetic
from seventy.engine.model import Model
from tests.support.shapes import small

# 300 MB of weights.
SHAPE = small("llama", 16, 1024, 4096, 8, 8, 128, tensors=())


def test_decoding_reads_no_faster_than_memory_and_not_much_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of each, by turns: what others do on the machine slows both, and more turns make up for it."""
    # Where caches hold as much, both read them.
    monkeypatch.setattr(engine, "_PROBE_CACHES", 0)
    decoded = limit = 0.0
    with Model(Synthetic(SHAPE, "Q8_0"), 2, 64) as model:
        if len(model.program.weights.nodes) > 1:
            pytest.skip("memory is not read beside a task where weights lie on several nodes")
        seventy = engine.Seventy(model)
        for turn in range(200):
            timing = seventy.decode(2, 0)
            assert timing.limit_gbs
            decoded = max(decoded, 2 * model.read_bytes(0) / timing.seconds / 1e9)
            limit = max(limit, timing.limit_gbs)
            if turn >= 3 and 0.25 * limit <= decoded <= 1.05 * limit:
                break
    assert 0.25 * limit <= decoded <= 1.05 * limit
