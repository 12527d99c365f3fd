"""From logits to the next token."""

import ctypes
import math
import secrets
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.jit.compiler import Kernel, Library
from seventy.kernels import topk

KERNEL = Kernel("seventy.kernels.topk:build")
_SIGNATURE = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 3
)
_NO_NUMBERS = "the model gave no number for any token (NaN): its file is damaged; get it again"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose: penalties, then top-k, top-p and min-p, then temperature, as llama.cpp orders them.

    Temperature 0 takes the likeliest token. Top-k 0, top-p 1, min-p 0 and penalties of 1 (repeat) and 0 (presence,
    frequency) do nothing. Penalties look at the last `penalty_window` tokens. A seed of None is drawn at random.
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
                raise SeventyError(f"{name} must be from {low} to {high}, not {value}")
        if self.seed is not None and not 0 <= self.seed < 1 << 64:
            raise SeventyError(f"seed must be from 0 to 2**64 - 1, not {self.seed}")


class TopK:
    """The k largest logits and their indices, largest first (kernels/topk.py). For one thread at a time."""

    def __init__(self, library: Library) -> None:
        self._function = _SIGNATURE(library.address(KERNEL))
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
        found = self._find(logits, k)
        return self._values[:found].copy(), self._indices[:found].copy()

    def first(self, logits: NDArray[np.float32]) -> int | None:
        """The index of the largest, the first of equals; None where no logit is a number."""
        return int(self._indices[0]) if self._find(logits, 1) else None


class Sampler:
    """Chooses the tokens of one text; the same seed and logits give the same tokens."""

    def __init__(self, sampling: Sampling, top_k: TopK, tokens: Iterable[int] = ()) -> None:
        self.sampling = sampling
        self.seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        self._top_k = top_k
        self._random = np.random.Generator(np.random.PCG64(self.seed))
        self._recent: deque[int] = deque(tokens, maxlen=sampling.penalty_window)

    def accept(self, token: int) -> None:
        """Tells the penalties that a token was written."""
        self._recent.append(token)

    def pick(self, logits: NDArray[np.float32]) -> int:
        """The next token. The logits (float32 [vocabulary], contiguous) are changed by the penalties."""
        s = self.sampling
        self._penalize(logits)
        if s.temperature == 0 or s.top_k == 1:
            token = self._top_k.first(logits)
            if token is None:
                raise SeventyError(_NO_NUMBERS)
            return token
        if s.top_k:
            values, tokens = self._top_k(logits, s.top_k)
        else:
            tokens = np.argsort(-logits, kind="stable").astype(np.int32)
            values = logits[tokens]
        if not len(tokens):
            raise SeventyError(_NO_NUMBERS)
        scores = values.astype(np.float64)
        weights = np.exp(scores - scores[0])
        keep = len(weights)
        if s.top_p < 1:
            share = np.cumsum(weights) / weights.sum()
            keep = int(np.searchsorted(share, s.top_p)) + 1
        if s.min_p > 0:
            keep = min(keep, int(np.count_nonzero(weights >= s.min_p)))
        scores = scores[: max(1, keep)]
        share = np.cumsum(np.exp((scores - scores[0]) / s.temperature))
        return int(tokens[np.searchsorted(share, self._random.random() * share[-1], side="right")])

    def _penalize(self, logits: NDArray[np.float32]) -> None:
        s = self.sampling
        if (s.repeat_penalty, s.presence_penalty, s.frequency_penalty) == (1, 0, 0) or not self._recent:
            return
        counts = Counter(self._recent)
        tokens = np.fromiter(counts, np.int64)
        some = logits[tokens]
        some = np.where(some > 0, some / s.repeat_penalty, some * s.repeat_penalty)
        some -= s.presence_penalty + s.frequency_penalty * np.fromiter(counts.values(), np.float32)
        logits[tokens] = some
