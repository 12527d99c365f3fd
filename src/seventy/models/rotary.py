"""Rotary position embedding (Su et al. 2021): the tables kernels/rope.py reads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rotary:
    """`dim` dimensions turn by position / scale * base^(-2i / dim) / factors[i]; factors are Llama 3's, or None."""

    dim: int
    base: float
    scale: float
    factors: NDArray[np.float32] | None
    interleaved: bool

    def tables(self, positions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and signed sines [positions, dim], element by element as the kernel multiplies them."""
        frequencies = self.base ** (-np.arange(0, self.dim, 2) / self.dim) / self.scale
        if self.factors is not None:
            frequencies = frequencies / self.factors
        angles = np.arange(positions)[:, None] * frequencies
        cosine, sine = np.cos(angles), np.sin(angles)
        if self.interleaved:
            cosines, sines = np.repeat(cosine, 2, axis=1), np.stack([-sine, sine], axis=2).reshape(positions, -1)
        else:
            cosines, sines = np.concatenate([cosine, cosine], axis=1), np.concatenate([-sine, sine], axis=1)
        return np.ascontiguousarray(cosines, np.float32), np.ascontiguousarray(sines, np.float32)
