"""From logits to the next token."""

import ctypes
import math
import secrets
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.jit.compiler import Kernel, Library
from seventy.kernels import mass, topk
from seventy.language import t

# As many bounds are tried in one pass over the logits, and so many passes: every sixteenth of a step of 1 is enough.
_PARTS, _ROUNDS = 8, 3
KERNELS = (
    Kernel("seventy.kernels.topk:build"),
    *(Kernel("seventy.kernels.mass:build", (parts,)) for parts in (1, _PARTS)),
)
_SIGNATURE = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 3
)
_SIGNATURE_OF_MASS = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
_LOWEST = float(np.finfo(np.float32).min)
# Where all tokens take part, these are looked at first: nearly always the one that is drawn is among them.
_FIRST = 128
# So many are sorted rather than looked for.
_FEW = 20_000
NO_NUMBERS = t("the model gave no number for any token (NaN): its file is damaged; get it again")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options, applied in llama.cpp's order: penalties, top-k, top-p, min-p, temperature.

    Temperature 0 takes the likeliest token. Top-k 0, top-p 1, min-p 0, repeat penalty 1 and presence and frequency
    penalties 0 have no effect. Penalties consider the last `penalty_window` tokens. A seed of None is drawn at random.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 64
    seed: int | None = field(default=None)

    def __post_init__(self) -> None:
        limits = (
            ("temperature", 0, 100),
            ("top_k", 0, 1 << 30),
            ("top_p", 0, 1),
            ("min_p", 0, 1),
            ("repeat_penalty", 0.01, 100),
            ("presence_penalty", -100, 100),
            ("frequency_penalty", -100, 100),
            ("penalty_window", 0, 1 << 30),
        )
        for name, low, high in limits:
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise SeventyError(
                    "{name} must be from {low} to {high}, not {value}",
                    name=name, low=low, high=high, value=value,
                )
        if self.seed is not None and not 0 <= self.seed < 1 << 64:
            raise SeventyError("seed must be from 0 to 2**64 - 1, not {seed}", seed=self.seed)


class TopK:
    """The largest of many logits, and how much of their distribution lies where. For one thread at a time."""

    def __init__(self, library: Library) -> None:
        self._function = _SIGNATURE(library.address(KERNELS[0]))
        kernels = zip((1, _PARTS), KERNELS[1:], strict=True)
        self._sums = {n: _SIGNATURE_OF_MASS(library.address(kernel)) for n, kernel in kernels}
        self._make_room(64, 1 << 16)

    def _make_room(self, k: int, n: int) -> None:
        """Memory for k results of n logits, whose addresses are looked up once."""
        self._values, self._indices = np.empty(k, np.float32), np.empty(k, np.int32)
        self._scratch = np.empty(n // topk.CHUNK + 1, np.float32)
        self._addresses = tuple(each.ctypes.data for each in (self._values, self._indices, self._scratch))
        self._most_k, self._most_n = k, n

    def _find(self, logits: NDArray[np.float32], k: int) -> int:
        n = len(logits)
        if k > self._most_k or n > self._most_n:
            self._make_room(max(k, self._most_k), max(n, self._most_n))
        found: int = self._function(logits.ctypes.data, n, min(k, n), *self._addresses)
        return found

    def __call__(self, logits: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return the k largest logits and their indices, largest first, of equals the first."""
        found = self._find(logits, k)
        return self._values[:found].copy(), self._indices[:found].copy()

    def first(self, logits: NDArray[np.float32]) -> int | None:
        """Return the index of the largest logit, the first of equal ones; None if all are NaN."""
        return int(self._indices[0]) if self._find(logits, 1) else None

    def mass(self, logits: NDArray[np.float32], largest: float, scale: float = 1.0, low: float = _LOWEST) -> float:
        """Return the sum of e**((logit - largest) * scale) over all logits from `low` on (kernels/mass.py)."""
        return float(self._masses(logits, largest, scale, np.array([low], np.float32))[0])

    def reach(
        self, logits: NDArray[np.float32], largest: float, scale: float, target: float
    ) -> tuple[float, int, float]:
        """Find where the sum of e**((logit - largest) * scale), the largest first, of equals the first, reaches target.

        Returns the logit and the index that it is reached with, and the sum up to there. Not all are sorted: the sums
        above some bounds say between which of them it is.
        """
        above, high, low = 0.0, np.float32(np.inf), np.float32(_LOWEST)
        bounds = np.float32(largest) - np.float32(scale**-1) * 2.0 ** np.arange(-1, _PARTS - 1, dtype=np.float32)
        for _ in range(_ROUNDS):
            sums = self._masses(logits, largest, scale, bounds)
            at = int(np.searchsorted(sums, target))
            if at:
                above, high = float(sums[at - 1]), bounds[at - 1]
            if at < _PARTS:
                low = bounds[at]
            elif low == _LOWEST:
                break
            # No more than so many have that sum together.
            if float(sums[at]) - above <= _FEW * math.exp(max(-700.0, (float(low) - largest) * scale)):
                break
            top = np.float32(largest) if np.isinf(high) else high
            bounds = top - (top - low) * np.arange(1, _PARTS + 1, dtype=np.float32) / np.float32(_PARTS)
            # Rounded, it may lie above those that the sum is reached with.
            bounds[-1] = low
        ids = _in_order(logits, np.flatnonzero((logits >= low) & (logits < high)))
        sums = above + np.cumsum(np.exp((logits[ids].astype(np.float64) - largest) * scale))
        at = min(int(np.searchsorted(sums, target)), len(ids) - 1)
        return float(logits[ids[at]]), int(ids[at]), float(sums[at])

    def _masses(
        self, logits: NDArray[np.float32], largest: float, scale: float, bounds: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """The sums over the logits that are at least each of the bounds."""
        n, parts = len(logits), len(bounds)
        numbers = np.array([largest, scale, *bounds], np.float32)
        sums = np.empty((-(-n // mass.CHUNK), parts), np.float32)
        self._sums[parts](logits.ctypes.data, n, numbers.ctypes.data, sums.ctypes.data)
        total: NDArray[np.float64] = sums.sum(axis=0, dtype=np.float64)
        return total


def _in_order(logits: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """These indices, the largest logit first, of equals the first: as one sort of whole numbers, which is fastest."""
    # One zero, and of the bits of floats what is larger the earlier it comes.
    bits = (logits[ids] + np.float32(0)).view(np.uint32)
    bits = np.where(bits >> 31, bits, 0x7FFFFFFF - bits).astype(np.uint64)
    keys = np.sort(bits << np.uint64(32) | ids.astype(np.uint64))
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)


class _Many(NamedTuple):
    """Logits of which too many may be chosen to sort them: -inf where a token may not."""

    largest: float
    logits: NDArray[np.float32]


def _limited(logits: NDArray[np.float32], low: float, last: int) -> NDArray[np.float32]:
    """A copy with -inf for those below `low`, and for those equal to it after the index `last`."""
    logits = np.where(logits >= np.float32(low), logits, np.float32(-np.inf))
    behind = logits[last + 1 :]
    behind[behind == np.float32(low)] = -np.inf
    return logits


def _weights(values: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Weights of logits, the largest first, of which the largest weighs 1."""
    return np.exp((values.astype(np.float64) - float(values[0])) / temperature)


class Sampler:
    """Chooses the tokens of one text; the same seed and logits give the same tokens."""

    def __init__(self, sampling: Sampling, top_k: TopK, tokens: Iterable[int] = ()) -> None:
        s = self.sampling = sampling
        self.penalizes = (s.repeat_penalty, s.presence_penalty, s.frequency_penalty) != (1, 0, 0)
        self.seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        self._top_k = top_k
        self._random = np.random.Generator(np.random.PCG64(self.seed))
        # The tokens that penalties look at, and how often each stands among them.
        self._recent: deque[int] = deque(tokens if self.penalizes else (), maxlen=sampling.penalty_window)
        self._counts = Counter(self._recent)

    def copy(self) -> "Sampler":
        """Return an independent copy that makes the same choices as this one will."""
        other = Sampler(replace(self.sampling, seed=self.seed), self._top_k, self._recent)
        if self.sampling.temperature:
            other._random.bit_generator.state = self._random.bit_generator.state
        return other

    def accept(self, token: int) -> None:
        """Record a written token for the penalties."""
        if not self.penalizes or not self.sampling.penalty_window:
            return
        if len(self._recent) == self.sampling.penalty_window:
            oldest = self._recent[0]
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        self._recent.append(token)
        self._counts[token] += 1

    def pick(self, logits: NDArray[np.float32]) -> int:
        """Choose the next token. The logits (float32 [vocabulary], contiguous) are changed by the penalties."""
        s = self.sampling
        self._penalize(logits)
        if s.temperature == 0 or s.top_k == 1:
            token = self._top_k.first(logits)
            if token is None:
                raise SeventyError(NO_NUMBERS)
            return token
        candidates = self._candidates(logits)
        if isinstance(candidates, _Many):
            part = self._top_k.mass(candidates.logits, candidates.largest, 1 / s.temperature)
            drawn = self._random.random() * part
            return self._top_k.reach(candidates.logits, candidates.largest, 1 / s.temperature, drawn)[1]
        tokens, values = candidates
        share = np.cumsum(_weights(values, s.temperature))
        return int(tokens[np.searchsorted(share, self._random.random() * share[-1], side="right")])

    def probabilities(self, logits: NDArray[np.float32], token: int, n: int) -> tuple[float, list[tuple[int, float]]]:
        """Return with which probability `pick` chose this token of these logits, and the n likeliest with theirs.

        The logits are those that `pick` has left. Tokens that could not be chosen are not among the likeliest.
        """
        s = self.sampling
        if s.temperature == 0 or s.top_k == 1:
            return 1.0, [(token, 1.0)][:n]
        candidates = self._candidates(logits)
        if isinstance(candidates, _Many):
            values, tokens = self._top_k(candidates.logits, max(1, n))
            part = self._top_k.mass(candidates.logits, candidates.largest, 1 / s.temperature)
            mine = float(candidates.logits[token])
        else:
            tokens, values = candidates
            part = float(_weights(values, s.temperature).sum())
            mine = float(values[tokens == token][0])
        likeliest = zip(tokens[:n], _weights(values, s.temperature)[:n] / part, strict=True)
        # The largest weighs 1.
        own = math.exp((mine - float(values[0])) / s.temperature) / part
        return own, [(int(one), float(weight)) for one, weight in likeliest if weight > 0]

    def _candidates(self, logits: NDArray[np.float32]) -> "tuple[NDArray[np.int32], NDArray[np.float32]] | _Many":
        """The tokens that may be chosen, the likeliest first, and their logits; or all of them where they are many."""
        s = self.sampling
        values, tokens = self._top_k(logits, s.top_k or _FIRST)
        if not len(tokens):
            raise SeventyError(NO_NUMBERS)
        largest = float(values[0])
        total = None if s.top_k else self._top_k.mass(logits, largest)
        keep = self._kept(values, total)
        if keep is None and total is not None:
            low, last = self._least(logits, largest, total)
            # A little lower, so that rounding leaves none out.
            ids = np.flatnonzero(logits >= np.float32(low - 1e-3))
            if len(ids) > _FEW:
                return _Many(largest, _limited(logits, low, last))
            tokens = _in_order(logits, ids)
            values = logits[tokens]
            keep = self._kept(values, total)
        return tokens[:keep], values[:keep]

    def _least(self, logits: NDArray[np.float32], largest: float, total: float) -> tuple[float, int]:
        """The least logit that takes part, and the last index with it that does; `total` is the sum of all weights."""
        s = self.sampling
        low, last = (largest + math.log(s.min_p) if s.min_p > 0 else _LOWEST), len(logits)
        wanted = s.top_p * total
        if s.top_p < 1 and (low == _LOWEST or self._top_k.mass(logits, largest, low=low) >= wanted):
            low, last, _ = self._top_k.reach(logits, largest, 1.0, wanted)
        return low, last

    def _kept(self, values: NDArray[np.float32], total: float | None) -> int | None:
        """How many of the largest logits take part; None where more than these may.

        `total` is the sum of all weights, None where those of these are all that count.
        """
        s, n = self.sampling, len(values)
        scores = values.astype(np.float64)
        weights = np.exp(scores - scores[0])
        keep = n + 1
        if s.top_p < 1:
            share = np.cumsum(weights) / (weights.sum() if total is None else total)
            keep = int(np.searchsorted(share, s.top_p)) + 1
        if s.min_p > 0:
            likely = int(np.count_nonzero(weights >= s.min_p))
            keep = min(keep, likely if likely < n else n + 1)
        if keep > n:
            return n if total is None or n < _FIRST else None
        return max(1, keep)

    def _penalize(self, logits: NDArray[np.float32]) -> None:
        s, counts = self.sampling, self._counts
        if not counts:
            return
        tokens = np.fromiter(counts, np.int64)
        some = logits[tokens]
        some = np.where(some > 0, some / s.repeat_penalty, some * s.repeat_penalty)
        some -= s.presence_penalty + s.frequency_penalty * np.fromiter(counts.values(), np.float32)
        logits[tokens] = some
