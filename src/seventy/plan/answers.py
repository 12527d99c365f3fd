"""A prediction as a person or a program reads it."""

from seventy.plan.roofline import Band, Prediction
from seventy.plan.words import number, say


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def band_json(band: Band) -> dict[str, float]:
    return {"low": _round(band.low), "mid": _round(band.mid), "high": _round(band.high)}


def reason(found: Prediction, lang: str) -> str:
    """Why it is as fast as it is, with the bytes behind it."""
    have = found.machine.memory_gb or 0.0
    return say("bound_" + found.bound, lang, {
        "read": found.read_gb_per_token, "gbs": found.effective_gbs, "share": f"{100 * found.share:.0f}",
        "peak": found.peak_gbs, "ops": 2 * found.load.active_params_b, "ms": found.barrier_ms,
        "needs": found.needs_gb, "have": have,
    })  # fmt: skip


def warnings(found: Prediction, lang: str) -> list[str]:
    """What a reader must know besides: guesses made, channels empty, memory too small."""
    lines = [say(key, lang, values) for key, values in found.machine.notes]
    if found.engine == "seventy":
        lines.append(say("seventy_aim", lang))
    return lines


def as_json(found: Prediction, lang: str = "en") -> dict[str, object]:
    """The answer of `seventy predict --json`; rates in tokens a second, sizes in GB (1e9), times in seconds."""
    machine = found.machine
    return {
        "decode_tok_s": band_json(found.decode),
        "prefill_tok_s": band_json(found.prefill),
        "time_to_first_token_s": band_json(found.first_token_s),
        "bound": found.bound,
        "fits": found.fits,
        "reason": reason(found, lang),
        "warnings": warnings(found, lang),
        "model": {
            "name": found.load.name, "quant": found.load.quant, "params_b": found.load.params_b,
            "active_params_b": found.load.active_params_b, "file_gb": _round(found.load.file_gb),
            "read_gb_per_token": _round(found.read_gb_per_token), "needs_gb": _round(found.needs_gb),
        },
        "machine": {
            "name": machine.name, "known_cpu": machine.cpu is not None, "kind": machine.kind,
            "sockets": machine.sockets, "cores": machine.cores, "channels": machine.channels,
            "channels_total": machine.channels_total, "mts": machine.mts, "peak_gbs": _round(found.peak_gbs),
            "effective_gbs": _round(found.effective_gbs), "memory_gb": machine.memory_gb,
        },
        "engine": found.engine,
        "context": found.context,
        "ms_per_token": {
            "memory": _round(found.memory_ms), "compute": _round(found.compute_ms),
            "barriers": _round(found.barrier_ms), "ssd": _round(found.ssd_ms),
        },
        "basis": "design aim" if found.engine == "seventy" else "published measurements",
    }  # fmt: skip


def as_text(found: Prediction, lang: str) -> str:
    """Seven lines for a terminal."""
    machine = found.machine
    memory = (
        say("p_measured", lang, {"gbs": machine.measured_gbs})
        if machine.measured_gbs
        else say("p_channels", lang, {"channels": machine.channels, "total": machine.channels_total,
                                      "mts": machine.mts})
    )  # fmt: skip

    def line(key: str, band: Band, unit: str) -> str:
        return f"{say(key, lang)}: {number(band.mid)} {unit}  ({number(band.low)} - {number(band.high)})"

    of = say("of_memory", lang, {"have": machine.memory_gb}) if machine.memory_gb else ""
    fit = (say("fits", lang, {"needs": found.needs_gb, "of": of}) if found.fits
           else say("no_fit", lang, {"needs": found.needs_gb, "have": machine.memory_gb or 0.0}))  # fmt: skip
    return "\n".join([
        say("p_on", lang, {"model": found.load.name, "quant": found.load.quant, "machine": machine.name,
                           "memory": memory, "engine": found.engine, "context": found.context}),
        line("p_decode", found.decode, say("p_unit", lang)),
        line("p_prefill", found.prefill, say("p_unit", lang)),
        line("p_first", found.first_token_s, say("p_prompt", lang)),
        f"{say('p_why', lang)}: {reason(found, lang)}",
        f"{say('p_memory', lang)}: {fit}",
    ])  # fmt: skip
