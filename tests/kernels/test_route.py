import numpy as np
import pytest

from seventy.jit.compiler import Kernel
from seventy.jit.isa import Isa
from seventy.kernels import combine, route
from tests.support import twins
from tests.support.call import call, count

CHOSEN = "softmax of the chosen"


def run(
    isa: Isa,
    scores: np.ndarray,
    used: int,
    scoring: route.Scoring,
    normalise: bool,
    scale: float,
    groups: int = 1,
    groups_used: int = 1,
    bias: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    n, experts = scores.shape
    # What stands past the last expert has no say.
    padded = np.full((n, -(-experts // 16) * 16), np.nan, np.float32)
    padded[:, :experts] = scores
    found = {
        "weights": np.zeros((n, used), np.float32), "slots": np.zeros((n, used), np.int32),
        "inputs": np.zeros(n * used, np.int32), "active": np.zeros(1 + experts, np.int32),
        "starts": np.zeros(1 + experts, np.int32), "done": np.zeros(1, np.int64),
    }  # fmt: skip
    biases = np.zeros(padded.shape[1], np.float32)
    biases[:experts] = 0 if bias is None else bias
    parameters = (experts, used, scoring, normalise, groups, groups_used)
    call(
        isa, Kernel("seventy.kernels.route:build", parameters), route.ARGUMENTS, threads=3,
        rows=count(n), scores=padded, score_stride=padded.strides[0], bias=biases,
        scale=np.array([scale], np.float32), **found,
    )  # fmt: skip
    return found


def experts_of(found: dict[str, np.ndarray]) -> np.ndarray:
    """The expert of each row at each rank [rows, used], by where the slots lie."""
    active = found["active"][1 : 1 + found["active"][0]]
    starts = found["starts"][: len(active) + 1]
    return active[np.searchsorted(starts, found["slots"], side="right") - 1]


@pytest.mark.parametrize(
    ("n", "experts", "used", "scoring", "normalise", "groups", "bias"),
    [
        (1, 8, 2, "softmax", True, None, 0.0),
        (200, 128, 8, "softmax", True, None, 0.0),
        (7, 60, 4, "softmax", False, (4, 2), 0.1),
        (3, 5, 5, "softmax", False, None, 0.0),
        (50, 256, 8, "sigmoid", True, (8, 4), 0.5),
        (50, 8, 2, "sigmoid", True, (4, 2), 0.5),
        (9, 40, 3, "sigmoid", False, (2, 1), 0.0),
        (30, 32, 4, CHOSEN, False, None, 0.0),
        (9, 20, 6, CHOSEN, True, None, 0.3),
    ],
)  # fmt: skip
def test_the_best_are_chosen_in_order(
    n: int,
    experts: int,
    used: int,
    scoring: route.Scoring,
    normalise: bool,
    groups: tuple[int, int] | None,
    bias: float,
    isa: Isa,
) -> None:
    rng = np.random.default_rng(experts)
    scores = rng.standard_normal((n, experts)).astype(np.float32) * 3
    rule = used, scoring, normalise, 1.5, *(groups or (1, 1)), bias * rng.standard_normal(experts).astype(np.float32)
    found = run(isa, scores, *rule)
    order, weights = twins.route(scores, *rule)
    np.testing.assert_allclose(found["weights"], weights, rtol=3e-6)
    if bias or groups:
        plainly, _ = twins.route(scores, *rule[:4])
        assert (plainly != order).any(1).mean() > 0.4
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


@pytest.mark.parametrize(("scoring", "groups"), [("softmax", (1, 1)), ("sigmoid", (8, 4)), (CHOSEN, (1, 1))])
def test_of_equals_the_first_is_chosen(scoring: route.Scoring, groups: tuple[int, int], isa: Isa) -> None:
    scores = np.random.default_rng(1).integers(-1, 2, (64, 128)).astype(np.float32)
    scores[0], scores[1] = 0, np.tile([0.0, -0.0], 64)
    found = run(isa, scores, 8, scoring, True, 1.0, *groups)
    np.testing.assert_array_equal(experts_of(found), twins.route(scores, 8, scoring, True, 1.0, *groups)[0])


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", CHOSEN])
@pytest.mark.parametrize("groups", [(1, 1), (4, 2)])
def test_no_scores_lead_out_of_range(scoring: route.Scoring, groups: tuple[int, int], isa: Isa) -> None:
    scores = np.zeros((7, 8), np.float32)
    scores[0], scores[1], scores[2, 3] = np.nan, np.inf, np.nan
    scores[3], scores[4, ::2] = -np.inf, 3e38
    scores[6, 7] = -np.float32(np.nan)
    found = run(isa, scores, 3, scoring, True, 1.0, *groups)
    assert ((found["slots"] >= 0) & (found["slots"] < 21)).all()
    assert sorted(found["inputs"].tolist()) == sorted([*range(7)] * 3)
    assert 1 <= found["active"][0] <= 8 and ((found["active"][1:] >= 0) & (found["active"][1:] < 8)).all()
    assert np.isfinite(found["weights"][5]).all()
    # What is no number is not hidden, not even where it is one score of many.
    for row in (0, 2, 6):
        assert np.isnan(found["weights"][row]).any()
    # Nobody is chosen twice.
    assert all(len(set(row)) == 3 for row in experts_of(found).tolist())


@pytest.mark.parametrize(
    ("shared", "gated", "add"), [(False, False, True), (False, False, False), (True, False, True), (True, True, True)]
)
def test_what_experts_gave_is_added_in_order_of_rank(shared: bool, gated: bool, add: bool, isa: Isa) -> None:
    rng = np.random.default_rng(3)
    n, used, columns = 9, 3, 80
    weights = rng.uniform(0, 1, (n, used)).astype(np.float32)
    slots = rng.permutation(n * used).reshape(n, used).astype(np.int32)
    x = rng.standard_normal((n * used, columns)).astype(np.float32)
    before = rng.standard_normal((n, columns)).astype(np.float32)
    everyones = rng.standard_normal((n, columns)).astype(np.float32)
    gate = rng.standard_normal((n, 16)).astype(np.float32) * 3
    out = before.copy()
    call(
        isa, Kernel("seventy.kernels.combine:build", (used, shared, gated, add)), combine.ARGUMENTS, threads=2,
        rows=count(n), weights=weights, slots=slots, input=x, stride=x.strides[0], output=out,
        shared=everyones, gate=gate, gate_stride=gate.strides[0],
    )  # fmt: skip
    want = before * add + (x[slots].astype(np.float64) * weights[..., None]).sum(1)
    if shared:
        want += everyones / (1 + np.exp(-gate[:, :1])) if gated else everyones
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
