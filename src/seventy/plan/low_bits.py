"""Quants below four bits: which one makes a model fit a machine, and what it costs in quality by published figures."""

from dataclasses import dataclass, replace

from seventy.catalog.quant_loss import QuantLoss, loss_of
from seventy.catalog.quants import known_quant, nominal_bits
from seventy.errors import SeventyError
from seventy.plan.machine import Machine
from seventy.plan.roofline import Load, Prediction, predict
from seventy.plan.wanted import Wanted, catalogue_load
from seventy.plan.words import say
from seventy.runtime.memory import USUAL_CONTEXT
from seventy.sizes import size

# llama.cpp's mixtures from the largest on; of two of one size the better one.
ORDER = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_M", "IQ3_XXS", "IQ2_M", "IQ2_XS", "IQ2_XXS", "IQ1_M",
    "IQ1_S",
)  # fmt: skip
# A quant of so many bits is as good as the whole model to most: nothing is said of it.
_HARMLESS_BITS = 4


@dataclass(frozen=True, slots=True)
class Fit:
    """A quant of the wanted model that fits, and what to expect of it."""

    quant: str
    prediction: Prediction


def loss_text(quant: str, params_b: float, lang: str = "en") -> str | None:
    """Describe the quality loss of a quant in a sentence with its source; None for four bits or more."""
    if not known_quant(quant) or nominal_bits(quant) >= _HARMLESS_BITS:
        return None
    loss = loss_of(quant, params_b)
    if loss is None:
        return say("loss_unknown", lang, {"quant": quant})
    return say("loss_texts" if loss.mmlu is None else "loss_answers", lang, _values(loss))


def _values(loss: QuantLoss) -> dict[str, object]:
    return {
        "quant": loss.quant, "model": loss.model, "kl": loss.kl, "perplexity": loss.perplexity,
        "whole": loss.whole_perplexity, "mmlu": loss.mmlu, "best": loss.best_mmlu, "best_quant": loss.best_quant,
        "source": loss.source, "date": loss.date,
    }  # fmt: skip


def lower(want: Wanted, engine: str) -> list[Load]:
    """Return the wanted model at smaller quants that the engine runs, largest first.

    It is empty if the model's other sizes are unknown; gpt-oss has experts of four bits in every file.
    """
    if want.name is None or want.architecture == "gpt-oss":
        return []
    loads = []
    for quant in ORDER:
        try:
            load = catalogue_load(want.name.model, quant)
        except SeventyError:
            break
        unable = engine == "seventy" and replace(want, load=load).reason() is not None
        if load.file_gb < want.load.file_gb and not unable:
            loads.append(replace(load, name=want.load.name))
    return loads


def fitting(want: Wanted, machine: Machine, engine: str, context: int, users: int = 1) -> Fit | None:
    """Return the largest quant that fits where the wanted one does not; None if none does.

    Also None if the wanted one fits, or the machine's memory or the model's other sizes are unknown.
    """
    if machine.room_bytes is None or predict(machine, want.load, context, engine, users=users).fits:
        return None
    for load in lower(want, engine):
        found = predict(machine, load, context, engine, users=users)
        if found.fits:
            return Fit(load.quant, found)
    return None


def endings(want: Wanted, engine: str, lang: str, machine: Machine | None, context: int, users: int = 1) -> list[str]:
    """Return an answer's lines on low-bit quants: the quality loss of the wanted one, and which fits instead."""
    fit = fitting(want, machine, engine, context, users) if machine else None
    losses = [loss_text(quant, want.load.params_b, lang) for quant in [want.load.quant, *([fit.quant] if fit else [])]]
    lines = [losses[0]] if losses[0] else []
    if fit:
        speed, load = fit.prediction.decode, fit.prediction.load
        lines.append(say("fits_quant", lang, {
            "quant": fit.quant, "size": size(1e9 * load.file_gb), "mid": speed.mid, "low": speed.low,
            "high": speed.high, "needs": size(fit.prediction.need.total), "context": max(context, USUAL_CONTEXT),
        }))  # fmt: skip
        lines += [losses[1]] if losses[1] else []
    return lines


def loss_json(load: Load) -> dict[str, object] | None:
    """Return the quality loss of a quant as numbers; None for four bits or more, or if it was not measured."""
    found = loss_of(load.quant, load.params_b) if loss_text(load.quant, load.params_b) else None
    return _values(found) if found else None


def fit_json(want: Wanted, engine: str, machine: Machine | None, context: int, users: int = 1) -> dict[str, object]:
    """Return the quant that fits instead of the wanted one, and its quality loss, as numbers."""
    fit = fitting(want, machine, engine, context, users) if machine else None
    fits = None
    if fit:
        speed = fit.prediction.decode
        fits = {
            "quant": fit.quant, "file_gb": fit.prediction.load.file_gb, "need_bytes": fit.prediction.need.total,
            "decode_tok_s": {"low": speed.low, "mid": speed.mid, "high": speed.high},
            "quality_loss": loss_json(fit.prediction.load),
        }  # fmt: skip
    return {"quality_loss": loss_json(want.load), "fitting_quant": fits}
