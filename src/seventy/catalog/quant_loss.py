"""What quants cost in quality, as others measured it: KL divergence and perplexity, or answers of MMLU."""

import math
from dataclasses import dataclass
from functools import cache

from seventy.catalog.quants import plain
from seventy.catalog.rows import load


@dataclass(frozen=True, slots=True)
class QuantLoss:
    """What was measured of a model at a quant.

    `kl` is the mean KL divergence from the 16-bit model in nats, `perplexity` beside `whole_perplexity` of that model;
    `mmlu` are right answers in percent, beside `best_mmlu` at `best_quant`, the largest that was measured.
    """

    model: str
    params_b: float
    quant: str
    kl: float | None
    perplexity: float | None
    whole_perplexity: float | None
    mmlu: float | None
    best_mmlu: float | None
    best_quant: str
    date: str
    source: str

    def __post_init__(self) -> None:
        texts = [self.kl, self.perplexity, self.whole_perplexity]
        answers = [self.mmlu, self.best_mmlu, self.best_quant or None]
        if sorted([texts.count(None), answers.count(None)]) != [0, 3]:
            raise ValueError(f"{self.model} {self.quant}: KL with both perplexities, or MMLU with the best")
        if not self.source or not self.date:
            raise ValueError(f"{self.model} {self.quant}: source and date are needed")


@cache
def quant_losses() -> tuple[QuantLoss, ...]:
    return tuple(load("quant_loss.csv", QuantLoss))


def loss_of(quant: str, params_b: float) -> QuantLoss | None:
    """The loss of this quant measured on the model nearest in size; None where nobody measured it.

    Unsloth's mixtures are not llama.cpp's of the same name: of them nothing is known here.
    """
    if quant.upper() != plain(quant):
        return None
    same = [row for row in quant_losses() if row.quant == quant.upper()]
    return min(same, key=lambda row: abs(math.log(row.params_b / params_b)), default=None)
