"""What a step reads of the matrices, in bytes."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Reads:
    """Bytes of matrices: those that every row reads, those that only rows which want logits do, and of each layer with
    experts how many it read in the last step and how many bytes one has. The embedding is in neither: of it one row a
    token is read.
    """

    rows: int = 0
    outputs: int = 0
    experts: list[tuple[NDArray[np.int32], int]] = field(default_factory=list)

    def last(self, outputs: bool) -> int:
        """Return what the last step read: each matrix once, of experts those that rows went to."""
        experts = sum(int(active[0]) * nbytes for active, nbytes in self.experts)
        return self.rows + experts + outputs * self.outputs

    def last_experts(self) -> float:
        """Return how many different experts the last step read, of a layer with experts on average; 0 without any."""
        return sum(int(active[0]) for active, _ in self.experts) / max(1, len(self.experts))

    def one_row(self, experts: int, outputs: bool) -> int:
        """Return the bytes a step of one row reads, with `experts` experts in each layer that has some."""
        return self.rows + sum(experts * nbytes for _, nbytes in self.experts) + outputs * self.outputs
