"""Rotary position embedding (Su et al. 2021) and the ways of stretching it over longer contexts."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seventy.errors import SeventyError
from seventy.graph.program import RotaryTables
from seventy.kernels.rope import STEP
from seventy.models.blocks.metadata import Metadata

_KINDS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True, slots=True)
class Rotary:
    """`dim` dimensions of each head turn, element pair i by position * frequencies()[i].

    `scaling` is none, linear (positions / factor), yarn (Peng et al. 2023: low frequencies are divided by `factor`,
    high ones stay, what is turned is lengthened) or longrope (frequencies divided by numbers the file gives);
    `original` is the context the model was first made for, `lengthening` what the file says to multiply by. Divisors
    of frequencies that the file has are not for layers `of_window`.
    """

    dim: int
    base: float
    interleaved: bool
    scaling: str = "none"
    factor: float = 1.0
    original: int = 0
    lengthening: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    of_window: bool = False

    @classmethod
    def from_metadata(cls, m: Metadata, head_dim: int, interleaved: bool) -> "Rotary":
        """Read the rotary settings of a file. Raises SeventyError for an unsupported scaling."""
        # A file that says nothing, or only a factor, means linear.
        scaling = m.text("rope.scaling.type", default="linear")
        if scaling not in _KINDS:
            raise SeventyError(
                "the model scales its positions by {scaling!r}, which this engine does not know; take a model with "
                "one of: {kinds}",
                scaling=scaling, kinds=", ".join(_KINDS),
            )
        legacy = m.number("rope.scale_linear", default=1.0)
        rotary = cls(
            dim=m.integer("rope.dimension_count", 2, head_dim, default=head_dim),
            base=m.number("rope.freq_base", default=10000.0),
            interleaved=interleaved,
            scaling=scaling,
            factor=1.0 if scaling == "none" else m.number("rope.scaling.factor", default=legacy),
            original=m.integer("rope.scaling.original_context_length", 1, 1 << 24, default=m.context()),
            lengthening=m.number("rope.scaling.attn_factor", default=1.0),
            beta_fast=m.number("rope.scaling.yarn_beta_fast", default=32.0),
            beta_slow=m.number("rope.scaling.yarn_beta_slow", default=1.0),
        )
        return rotary._checked()

    @classmethod
    def of_windows(cls, m: Metadata, head_dim: int, interleaved: bool) -> "Rotary":
        """Read the rotary settings of layers with a window, if the file has separate ones; they are never scaled."""
        dim = m.integer("rope.dimension_count_swa", 2, head_dim, default=head_dim)
        return cls(dim, m.number("rope.freq_base_swa", default=10000.0), interleaved, of_window=True)._checked()

    def shortened(self, log_multiplier: float) -> "Rotary":
        """Return these settings with `length` reduced by YaRN's `log_multiplier` (DeepSeek's mscale_all_dim)."""
        if self.scaling != "yarn":
            return self
        stretch = 1 + 0.1 * log_multiplier * math.log(max(1.0, self.factor))
        return replace(self, lengthening=self.lengthening / stretch)

    def _checked(self) -> "Rotary":
        if self.dim % 2 or self.base <= 1:
            raise SeventyError(
                "the model turns {dim} dimensions by base {base:g}; that cannot be: get the file again",
                dim=self.dim, base=self.base,
            )
        return self

    def frequencies(self, factors: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
        """Return the radians per position, [dim / 2]; `factors` are the divisors of Llama 3 or longrope."""
        pure = self.base ** (-np.arange(0, self.dim, 2) / self.dim)
        if factors is not None:
            pure = pure / factors
        stretched: NDArray[np.float64] = pure / self.factor
        if self.scaling != "yarn":
            return stretched

        def dimension(turns: float) -> float:
            """Which pair turns so many times over the original context."""
            return self.dim * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(self.base))

        low, high = max(0, math.floor(dimension(self.beta_fast))), math.ceil(dimension(self.beta_slow))
        high = min(self.dim - 1, high)
        ramp = np.clip((np.arange(self.dim // 2) - low) / max(0.001, high - low), 0, 1)
        return stretched * ramp + pure * (1 - ramp)

    @property
    def length(self) -> float:
        """The factor that YaRN or the file applies to queries and keys together with the rotation."""
        stretch = 1 + 0.1 * math.log(self.factor) if self.scaling == "yarn" else 1.0
        return self.lengthening * stretch

    def tables(self, positions: int, factors: NDArray[np.float32] | None = None, first: int = 0) -> RotaryTables:
        """Make the tables of cosines and sines for contexts of up to `positions`."""
        frequencies = self.frequencies(factors)

        def table(rows: int, step: int, length: float, first: int = 0) -> NDArray[np.float32]:
            angles = (first + np.arange(rows) * step)[:, None] * frequencies
            return (np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * length).astype(np.float32)

        coarse, fine = table(-(-positions // STEP), STEP, self.length, first), table(STEP, 1, 1.0)
        return RotaryTables(coarse, fine, self.dim, self.interleaved)
