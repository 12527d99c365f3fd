import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import combine, route
from tests.support.call import call, count


def run(isa: Isa, scores: np.ndarray, used: int, normalise: bool, scale: float) -> dict[str, np.ndarray]:
    n, experts = scores.shape
    found = {
        "weights": np.zeros((n, used), np.float32), "slots": np.zeros((n, used), np.int32),
        "inputs": np.zeros(n * used, np.int32), "active": np.zeros(1 + experts, np.int32),
        "starts": np.zeros(1 + experts, np.int32), "done": np.zeros(1, np.int64),
    }  # fmt: skip
    call(
        isa, Kernel("seventy.kernels.route:build", (experts, used, normalise)), route.ARGUMENTS, threads=3,
        rows=count(n), scores=scores, score_stride=scores.strides[0], scale=np.array([scale], np.float32), **found,
    )  # fmt: skip
    return found


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("n", "experts", "used"), [(1, 8, 2), (7, 16, 4), (200, 128, 8), (3, 5, 5)])
def test_the_likeliest_are_chosen_in_order(n: int, experts: int, used: int, normalise: bool, isa: Isa) -> None:
    scores = np.random.default_rng(experts).standard_normal((n, experts)).astype(np.float32) * 3
    found = run(isa, scores, used, normalise, 1.5)
    p = np.exp(scores - scores.max(1, keepdims=True).astype(np.float64))
    p /= p.sum(1, keepdims=True)
    order = np.argsort(-p, axis=1, kind="stable")[:, :used]
    want = np.take_along_axis(p, order, 1)
    if normalise:
        want = want / want.sum(1, keepdims=True)
    np.testing.assert_allclose(found["weights"], 1.5 * want, rtol=2e-6)
    # Slots are numbered expert by expert, in the order of the rows.
    pairs = sorted((expert, row) for row in range(n) for expert in order[row])
    assert found["inputs"].tolist() == [row for _, row in pairs]
    places = {pair: slot for slot, pair in enumerate(pairs)}
    assert found["slots"].tolist() == [[places[expert, row] for expert in order[row]] for row in range(n)]
    active = sorted(set(order.ravel().tolist()))
    assert found["active"][0] == len(active) and found["active"][1 : 1 + len(active)].tolist() == active
    starts = [min(slot for (expert, _), slot in places.items() if expert == each) for each in active]
    assert found["starts"][: len(active) + 1].tolist() == [*starts, n * used]
    assert found["done"][0] == 0


def test_no_scores_lead_out_of_range(isa: Isa) -> None:
    scores = np.zeros((6, 8), np.float32)
    scores[0], scores[1], scores[2, 3] = np.nan, np.inf, np.nan
    scores[3], scores[4, ::2] = -np.inf, 3e38
    found = run(isa, scores, 3, True, 1.0)
    assert ((found["slots"] >= 0) & (found["slots"] < 18)).all()
    assert sorted(found["inputs"].tolist()) == sorted([*range(6)] * 3)
    assert 1 <= found["active"][0] <= 8 and ((found["active"][1:] >= 0) & (found["active"][1:] < 8)).all()
    assert np.isfinite(found["weights"][5]).all()
    # What is no number is not hidden.
    assert np.isnan(found["weights"][0]).any() and np.isnan(found["weights"][2]).any()


def test_what_experts_gave_is_added_in_order_of_rank(isa: Isa) -> None:
    rng = np.random.default_rng(3)
    n, used, columns = 9, 3, 80
    weights = rng.uniform(0, 1, (n, used)).astype(np.float32)
    slots = rng.permutation(n * used).reshape(n, used).astype(np.int32)
    x = rng.standard_normal((n * used, columns)).astype(np.float32)
    before = rng.standard_normal((n, columns)).astype(np.float32)
    out = before.copy()
    call(
        isa, Kernel("seventy.kernels.combine:build", (used,)), combine.ARGUMENTS, threads=2, rows=count(n),
        weights=weights, slots=slots, input=x, stride=x.strides[0], output=out,
    )  # fmt: skip
    want = before + (x[slots].astype(np.float64) * weights[..., None]).sum(1)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
