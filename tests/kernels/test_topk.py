import numpy as np
import pytest

from seventy.engine.sampler import TopK
from seventy.jit.isa import Isa
from tests.support.call import library


@pytest.mark.parametrize("n", [1, 15, 16, 255, 256, 257, 5000])
@pytest.mark.parametrize("k", [1, 2, 40, 6000])
def test_equals_a_stable_sort(n: int, k: int, isa: Isa) -> None:
    # Few different values, so that many are equal: the first of equals comes first.
    logits = np.random.default_rng(n).integers(-20, 20, n).astype(np.float32)
    before = logits.copy()
    values, indices = TopK(library(isa))(logits, k)
    want = np.argsort(-before, kind="stable")[:k]
    assert indices.tolist() == want.tolist()
    assert values.tolist() == before[want].tolist()
    assert np.array_equal(logits, before)


def test_infinities_and_nans_are_left_out(isa: Isa) -> None:
    logits = np.array([np.nan, -np.inf, 2, np.nan, -5, -np.inf], np.float32)
    _, indices = TopK(library(isa))(logits, 5)
    assert indices.tolist() == [2, 4]
    assert len(TopK(library(isa))(np.full(300, np.nan, np.float32), 3)[0]) == 0
