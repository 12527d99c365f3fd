"""Quants below four bits: which one makes a model fit a machine, and what it costs in quality by published figures."""

from dataclasses import dataclass

from seventy.catalog.quant_loss import QuantLoss, loss_of
from seventy.catalog.quants import known_quant, nominal_bits
from seventy.errors import SeventyError
from seventy.plan.machine import Machine
from seventy.plan.roofline import Prediction, predict
from seventy.plan.wanted import Wanted, catalogue_load
from seventy.plan.words import LANGUAGES, number
from seventy.runtime.memory import USUAL_CONTEXT
from seventy.sizes import size

# llama.cpp's mixtures from the largest on; of two of one size the better one.
ORDER = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_M", "IQ3_XXS", "IQ2_M", "IQ2_XS", "IQ2_XXS", "IQ1_M",
    "IQ1_S",
)  # fmt: skip
# A quant of so many bits is as good as the whole model to most: nothing is said of it.
_HARMLESS_BITS = 4
_TEXTS = {
    "answers": (
        "{quant} costs quality: {model} answers {mmlu} % of MMLU's questions right with it, {best} % with {best_quant} "
        "({source}, {date}).",
        "{quant} 会降低质量：{model} 的 MMLU 正确率为 {mmlu}%，{best_quant} 为 {best}%（{source}，{date}）。",
    ),
    "texts": (
        "{quant} costs quality: with it {model} has a KL divergence of {kl} from its 16-bit weights and a perplexity "
        "of {perplexity} instead of {whole} ({source}, {date}); larger models lose less.",
        "{quant} 会降低质量：{model} 与 16 位权重的 KL 散度为 {kl}，困惑度从 {whole} 升到 {perplexity}"
        "（{source}，{date}）；模型越大损失越小。",
    ),
    "unknown": (
        "{quant} has fewer than four bits a weight; nobody is known to have published what that costs in quality.",
        "{quant} 每个权重不足四位；未见公开的质量损失数据。",
    ),
    "fits": (
        "What fits here: {quant}, {size}, about {mid} tok/s ({low} to {high}), needs {needs} with a context of "
        "{context}; --quant {quant} says more.",
        "本机装得下的是 {quant}：{size}，约 {mid} 词元/秒（{low} 到 {high}），上下文 {context} 时需要 {needs}；"
        "详见 --quant {quant}。",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fit:
    """A quant of the wanted model that fits, and what to expect of it."""

    quant: str
    prediction: Prediction


def _sentence(key: str, lang: str, values: dict[str, object]) -> str:
    shown = {name: number(value) if isinstance(value, float) else value for name, value in values.items()}
    return _TEXTS[key][LANGUAGES.index(lang)].format(**shown)


def loss_text(quant: str, params_b: float, lang: str = "en") -> str | None:
    """What the quant costs in quality, in a sentence with its source; None for one of four bits or more."""
    if not known_quant(quant) or nominal_bits(quant) >= _HARMLESS_BITS:
        return None
    loss = loss_of(quant, params_b)
    if loss is None:
        return _sentence("unknown", lang, {"quant": quant})
    return _sentence("texts" if loss.mmlu is None else "answers", lang, _values(loss))


def _values(loss: QuantLoss) -> dict[str, object]:
    return {
        "quant": loss.quant, "model": loss.model, "kl": loss.kl, "perplexity": loss.perplexity,
        "whole": loss.whole_perplexity, "mmlu": loss.mmlu, "best": loss.best_mmlu, "best_quant": loss.best_quant,
        "source": loss.source, "date": loss.date,
    }  # fmt: skip


def fitting(want: Wanted, machine: Machine, engine: str, context: int, users: int = 1) -> Fit | None:
    """The largest quant of a model of the catalogue that fits where the wanted one does not; None if none does.

    None, too, where the wanted one fits, or nobody knows the machine's memory or the model's other sizes.
    """
    if machine.room_bytes is None or want.name is None or want.architecture == "gpt-oss":
        return None
    if predict(machine, want.load, context, engine, users=users).fits:
        return None
    for quant in ORDER:
        try:
            load = catalogue_load(want.name.model, quant)
        except SeventyError:
            return None
        if load.file_gb >= want.load.file_gb:
            continue
        found = predict(machine, load, context, engine, users=users)
        if found.fits:
            return Fit(quant, found)
    return None


def endings(want: Wanted, engine: str, lang: str, machine: Machine | None, context: int, users: int = 1) -> list[str]:
    """What an answer says of few bits: what the wanted quant costs, and which one fits where it does not."""
    fit = fitting(want, machine, engine, context, users) if machine else None
    losses = [loss_text(quant, want.load.params_b, lang) for quant in [want.load.quant, *([fit.quant] if fit else [])]]
    lines = [losses[0]] if losses[0] else []
    if fit:
        speed, load = fit.prediction.decode, fit.prediction.load
        lines.append(_sentence("fits", lang, {
            "quant": fit.quant, "size": size(1e9 * load.file_gb), "mid": speed.mid, "low": speed.low,
            "high": speed.high, "needs": size(fit.prediction.need.total), "context": max(context, USUAL_CONTEXT),
        }))  # fmt: skip
        lines += [losses[1]] if losses[1] else []
    return lines


def fit_json(want: Wanted, engine: str, machine: Machine | None, context: int, users: int = 1) -> dict[str, object]:
    """The same as numbers."""
    fit = fitting(want, machine, engine, context, users) if machine else None

    def loss(quant: str) -> dict[str, object] | None:
        found = loss_of(quant, want.load.params_b) if loss_text(quant, want.load.params_b) else None
        return _values(found) if found else None

    fits = None
    if fit:
        speed = fit.prediction.decode
        fits = {
            "quant": fit.quant, "file_gb": fit.prediction.load.file_gb, "need_bytes": fit.prediction.need.total,
            "decode_tok_s": {"low": speed.low, "mid": speed.mid, "high": speed.high}, "quality_loss": loss(fit.quant),
        }  # fmt: skip
    return {"quality_loss": loss(want.load.quant), "fitting_quant": fits}
