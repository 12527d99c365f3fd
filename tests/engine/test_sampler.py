"""The next token, beside a sampler that sorts every logit."""

from dataclasses import replace

import numpy as np
import pytest

from seventy import SeventyError
from seventy.engine.sampler import Sampler, Sampling, TopK
from seventy.jit.isa import Isa, supported
from tests.support.call import library

N = 70_001


def shares(logits: np.ndarray, s: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may be drawn, the likeliest first, and how likely each is."""
    tokens = np.argsort(-logits, kind="stable")[: s.top_k or None]
    scores = logits[tokens].astype(np.float64)
    weights = np.exp(scores - scores[0])
    keep = len(weights)
    if s.top_p < 1:
        keep = int(np.searchsorted(np.cumsum(weights) / weights.sum(), s.top_p)) + 1
    if s.min_p > 0:
        keep = min(keep, int(np.count_nonzero(weights >= s.min_p)))
    keep = max(1, keep)
    drawn = np.exp((scores[:keep] - scores[0]) / s.temperature)
    return tokens[:keep], drawn / drawn.sum()


def plain(logits: np.ndarray, s: Sampling, u: float) -> int:
    tokens, weights = shares(logits, s)
    share = np.cumsum(weights)
    return int(tokens[np.searchsorted(share, u * share[-1], side="right")])


@pytest.fixture(scope="module")
def top_k() -> TopK:
    return TopK(library(supported()[0]))


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    "options",
    [
        {"top_p": 1.0, "min_p": 0.0},
        {"top_p": 0.9, "min_p": 0.0},
        {"top_p": 1.0, "min_p": 0.05},
        {"top_p": 0.95, "min_p": 0.2},
        {"top_p": 0.5, "min_p": 0.0, "temperature": 1.7},
        {"top_p": 1.0, "min_p": 0.0, "temperature": 0.4},
        {"top_p": 0.99, "min_p": 0.001, "temperature": 30.0},
        {"top_k": 40},
        {"top_k": 5000, "top_p": 0.97, "min_p": 0.0},
    ],
)
def test_tokens_are_those_of_a_whole_sort(spread: float, options: dict, top_k: TopK) -> None:
    s = replace(Sampling(temperature=1.0, top_k=0, seed=7), **options)
    sampler, random = Sampler(s, top_k), np.random.Generator(np.random.PCG64(7))
    rng = np.random.default_rng(3)
    for _ in range(8):
        # Many are equal; some are masked, as grammars do.
        logits = np.round(rng.standard_normal(N) * spread, 2).astype(np.float32)
        logits[rng.integers(0, N, 1000)] = -np.inf
        before = logits.copy()
        token = sampler.pick(logits)
        assert token == plain(logits, s, random.random())
        assert np.array_equal(logits, before)
        own, likeliest = sampler.probabilities(logits, token, 20)
        tokens, weights = shares(logits, s)
        assert own == pytest.approx(weights[tokens == token][0], rel=1e-4)
        assert [one for one, _ in likeliest] == tokens[:20].tolist()
        assert [weight for _, weight in likeliest] == pytest.approx(weights[:20], rel=1e-4)


def test_equals_are_drawn_alike(top_k: TopK) -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_k=0, top_p=0.5, min_p=0.0, seed=1), top_k)
    drawn = [sampler.pick(np.zeros(1000, np.float32)) for _ in range(300)]
    assert max(drawn) < 500 and len(set(drawn)) > 150


@pytest.mark.parametrize("n", [1, 15, 16, 17, 4096, 4097, 10_000])
def test_masses_are_sums_of_exponentials(n: int, isa: Isa) -> None:
    logits = (np.random.default_rng(n).standard_normal(n) * 5).astype(np.float32)
    logits[n // 2] = -np.inf if n > 1 else 1.0
    logits[0] = np.nan if n > 1 else 1.0
    finite = np.where(np.isfinite(logits), logits, -np.inf).astype(np.float64)
    found = TopK(library(isa))
    for scale in (1.0, 0.3, 5.0):
        weights = np.exp((finite - finite.max()) * scale)
        assert found.mass(logits, float(finite.max()), scale) == pytest.approx(weights.sum(), rel=2e-6)


def test_bounds_that_are_rounded_leave_nothing_out(top_k: TopK) -> None:
    for largest in np.random.default_rng(0).uniform(-3, 3, 3000).astype(np.float32):
        # Nearly all stand at the first bounds.
        low = largest - np.float32(1)
        logits = np.full(25_000, low, np.float32)
        logits[:10] = largest
        total = top_k.mass(logits, float(largest))
        assert top_k.reach(logits, float(largest), 1.0, total * (1 - 1e-6))[0] == low


def test_what_is_no_number_is_an_answer(top_k: TopK) -> None:
    for options in ({"top_k": 0}, {"top_k": 40}, {"temperature": 0.0}):
        with pytest.raises(SeventyError, match="no number for any token"):
            Sampler(replace(Sampling(temperature=1.0), **options), top_k).pick(np.full(300, np.nan, np.float32))


def test_penalties_look_at_the_last_tokens(top_k: TopK) -> None:
    sampling = Sampling(repeat_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, penalty_window=4)
    sampler = Sampler(sampling, top_k, [1, 2, 3])
    for token in (3, 3, 5):
        sampler.accept(token)
    logits = np.array([4, 4, 4, 4, -4, -4], np.float32)
    sampler.pick(logits)
    # Of 3 3 3 5 and nothing before.
    assert logits.tolist() == [4, 4, 4, 2 - 0.5 - 0.75, -4, -8 - 0.75]
