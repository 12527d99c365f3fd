"""What quants cost in quality, as others measured it: KL divergence and perplexity, or answers of MMLU."""

import math
from dataclasses import dataclass
from functools import cache

from seventy.catalog.quants import plain
from seventy.catalog.rows import load
from seventy.language import t


@dataclass(frozen=True, slots=True)
class QuantLoss:
    """The measured quality loss of a model at a quant.

    `kl` is the mean KL divergence from the 16-bit model in nats, `perplexity` is to be compared with `whole_perplexity`
    of that model; `mmlu` are correct answers in percent, to be compared with `best_mmlu` at `best_quant`, the largest
    quant measured.
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
            raise ValueError(t(
                "{model} {quant}: KL with both perplexities, or MMLU with the best",
                model=self.model, quant=self.quant,
            ))
        if not self.source or not self.date:
            raise ValueError(t("{model} {quant}: source and date are needed", model=self.model, quant=self.quant))


@cache
def quant_losses() -> tuple[QuantLoss, ...]:
    return tuple(load("quant_loss.csv", QuantLoss))


def loss_of(quant: str, params_b: float) -> QuantLoss | None:
    """Return the quality loss of this quant, measured on the model nearest in size; None if it was not measured.

    Unsloth's mixtures differ from llama.cpp's of the same name; nothing is known of them here.
    """
    if quant.upper() != plain(quant):
        return None
    same = [row for row in quant_losses() if row.quant == quant.upper()]
    return min(same, key=lambda row: abs(math.log(row.params_b / params_b)), default=None)
