"""A prediction as a person or a program reads it."""

from seventy.catalog.api_prices import api_prices_of
from seventy.catalog.models import all_models
from seventy.language import said, t
from seventy.plan import drafts, local
from seventy.plan.advice import notes
from seventy.plan.low_bits import loss_json
from seventy.plan.rank import Offer
from seventy.plan.roofline import Band, Prediction
from seventy.plan.shop import Plan
from seventy.plan.show import source_months
from seventy.plan.tables import table, terminal_width
from seventy.plan.words import number, say
from seventy.runtime.memory import USUAL_CONTEXT
from seventy.sizes import size


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def _gb(nbytes: int | None) -> float | None:
    return None if nbytes is None else _round(nbytes / 1e9)


def band_json(band: Band) -> dict[str, float]:
    return {"low": _round(band.low), "mid": _round(band.mid), "high": _round(band.high)}


def drafts_json(found: Prediction) -> dict[str, object]:
    """Return the tokens per second that drafts gain by kind of text; empty if drafts are not predicted."""
    bands = drafts.of(found)
    return {"drafts_tok_s": {kind: band_json(band) for kind, band in bands.items()}} if bands else {}


def reason(found: Prediction, lang: str) -> str:
    """Explain the predicted speed, with the bytes behind it."""
    return say("bound_" + found.bound, lang, {
        "read": size(1e9 * found.read_gb_per_step), "gbs": found.effective_gbs, "share": f"{100 * found.share:.0f}",
        "peak": found.peak_gbs, "ops": 2 * found.users * found.load.active_params_b, "ms": found.barrier_ms,
        "needs": size(found.need.total), "room": size(found.machine.room_bytes or 0),
        "step": say("step" if found.users == 1 else "step_users", lang, {"users": found.users}),
    })  # fmt: skip


def warnings(found: Prediction, lang: str) -> list[str]:
    """List warnings about a prediction: assumptions made, empty channels, too little memory."""
    lines = [say(key, lang, values) for key, values in found.machine.notes]
    measured = local.current().measured(found.machine, found.engine)
    if measured is not None:
        lines.append(say("calibrated", lang, {"runs": measured.runs, "engine": found.engine}))
    elif found.engine == "seventy":
        lines.append(say("seventy_aim", lang))
    return lines


def as_json(found: Prediction, lang: str = "en") -> dict[str, object]:
    """Make the answer of `seventy predict --json`; rates in tokens per second, sizes in GB (1e9), times in seconds."""
    machine = found.machine
    return {
        "decode_tok_s": band_json(found.decode),
        "decode_tok_s_tuned": band_json(found.tuned) if found.tuned else None,
        "prefill_tok_s": None if machine.prompts_unknown else band_json(found.prefill),
        "time_to_first_token_s": None if machine.prompts_unknown else band_json(found.first_token_s),
        "bound": found.bound,
        "fits": found.fits,
        "reason": reason(found, lang),
        "warnings": warnings(found, lang),
        "model": {
            "name": found.load.name, "quant": found.load.quant, "params_b": found.load.params_b,
            "active_params_b": found.load.active_params_b, "file_gb": _round(found.load.file_gb),
            "read_gb_per_token": _round(found.read_gb_per_step / found.users),
            "needs_gb": _round(found.need.total / 1e9),
        },
        "machine": {
            "name": machine.name, "known_cpu": machine.cpu is not None, "kind": machine.kind,
            "sockets": machine.sockets, "cores": machine.cores, "channels": machine.channels,
            "channels_total": machine.channels_total, "mts": machine.mts, "peak_gbs": _round(found.peak_gbs),
            "effective_gbs": _round(found.effective_gbs), "memory_gb": _gb(machine.memory_bytes),
            "room_gb": _gb(machine.room_bytes),
        },
        "engine": found.engine,
        "context": found.context,
        "users": found.users,
        "decode_tok_s_together": band_json(found.together),
        "ms_per_step": {
            "memory": _round(found.memory_ms), "compute": _round(found.compute_ms),
            "barriers": _round(found.barrier_ms), "ssd": _round(found.ssd_ms),
        },
        "basis": _basis(found),
    }  # fmt: skip


def _basis(found: Prediction) -> str:
    if local.current().measured(found.machine, found.engine) is not None:
        return "result cards"
    return "design aim" if found.engine == "seventy" else "published measurements"


def as_text(found: Prediction, lang: str) -> str:
    """Format the answer as seven lines for a terminal, one more for several users."""
    machine = found.machine
    memory = (
        say("p_measured", lang, {"gbs": machine.measured_gbs})
        if machine.measured_gbs
        else say("p_channels", lang, {"channels": machine.channels, "total": machine.channels_total,
                                      "mts": machine.mts})
    )  # fmt: skip

    def labelled(key: str, text: str) -> str:
        return said(t("{label}: {other}", label=say(key, lang), other=text), lang)

    def line(key: str, band: Band, unit: str) -> str:
        return labelled(key, f"{number(band.mid)} {unit}  ({number(band.low)} - {number(band.high)})")

    prompts = [line("p_prefill", found.prefill, say("p_unit", lang)),
               line("p_first", found.first_token_s, say("p_prompt", lang))]  # fmt: skip
    prompt_unknown = [labelled("p_prefill", say("unknown", lang))]
    memory_values = {"needs": size(found.need.total), "room": size(machine.room_bytes or 0),
                     "have": size(machine.memory_bytes or 0), "context": max(found.context, USUAL_CONTEXT)}  # fmt: skip
    fit = say("needs" if machine.room_bytes is None else "fits" if found.fits else "no_fit", lang, memory_values)
    return "\n".join([
        say("p_on", lang, {"model": found.load.name, "quant": found.load.quant, "machine": machine.name,
                           "memory": memory, "engine": found.engine, "context": found.context}),
        line("p_decode", found.decode, say("p_unit", lang)),
        *([line("p_tuned", found.tuned, say("p_unit", lang))] if found.tuned else []),
        *([line("p_together", found.together, say("p_unit", lang))] if found.users > 1 else []),
        *(prompt_unknown if machine.prompts_unknown else prompts),
        labelled("p_why", reason(found, lang)),
        labelled("p_memory", fit),
    ])  # fmt: skip


def offer_json(offer: Offer, currency: str) -> dict[str, object]:
    build, cost = offer.build, offer.cost
    return {
        "name": build.name, "platform": build.platform.name, "cpu": build.cpu.name, "sockets": build.sockets,
        "memory": str(build.dimms), "channels": build.channels[0], "channels_total": build.channels[1],
        "price": round(build.price, 2), "price_low": round(build.price_low, 2),
        "price_high": round(build.price_high, 2), "currency": currency, "without_price": build.blanks,
        "parts": [
            {
                "part": part.label, "count": part.count, "each": part.each and round(part.each, 2),
                "low": round(part.bounds[0], 2), "high": round(part.bounds[1], 2),
                "price_then": part.price.each if part.price else None, "factor": round(part.factor.mid, 3),
                "inferred": part.price.inferred if part.price else None,
                "date": part.price.date if part.price else None, "region": part.price.region if part.price else None,
                "source": part.price.source if part.price else None,
                "condition": part.price.condition if part.price else None, "months_stale": part.stale_months,
            }
            for part in build.parts
        ],
        "decode_tok_s": band_json(build.prediction.decode), "prefill_tok_s": band_json(build.prediction.prefill),
        "time_to_first_token_s": band_json(build.prediction.first_token_s),
        "idle_w": cost.idle_w, "load_w": cost.load_w, "watts_estimated": cost.estimated,
        "kwh_per_day": round(cost.kwh_per_day, 2), "electricity_per_year": round(cost.electricity_per_year, 2),
        "cost_over_years": round(cost.over_years, 2), "per_million_tokens": round(cost.million_tokens, 2),
        "electricity_per_million_tokens": round(cost.million_tokens_electricity, 2),
        "noise": build.platform.noise_class or None, "litres": build.platform.volume_l,
        "gives_up": [key.removeprefix("x_") for key, _ in offer.breaks],
    }  # fmt: skip


def plan_json(plan: Plan, lang: str, top: int) -> dict[str, object]:
    """Make the answer of `seventy plan --json`; money in the price book's currency."""
    currency = plan.book.currency
    chosen = plan.ranked[0] if plan.ranked else None
    dates = source_months([chosen.build]) if chosen else []
    warned = notes(chosen, plan.load, plan.wishes, plan.book, plan.engine) if chosen else []
    return {
        "model": plan.load.name, "quant": plan.load.quant, "context": plan.context, "engine": plan.engine,
        "prices": {"region": plan.book.region, "currency": currency, "month": plan.book.month,
                   "ram_factor": plan.book.ram_factor},
        "prices_of": {"oldest": min(dates, default=None), "newest": max(dates, default=None)},
        "usage": {"hours_per_day": plan.usage.hours_per_day, "tariff": plan.usage.tariff, "years": plan.usage.years},
        "looked_at": plan.census.looked_at, "too_small": plan.census.too_small, "unpriced": plan.census.unpriced,
        "priced": len(plan.census.builds), "within_limits": len(plan.kept), "seconds": round(plan.seconds, 2),
        "builds": [offer_json(offer, currency) for offer in plan.ranked[:top]],
        "front": [offer_json(offer, currency) for offer in plan.front],
        **(drafts_json(chosen.build.prediction) if chosen else {}),
        "warnings": [say(key, lang, values) for key, values in warned],
        "nearest": [offer_json(offer, currency) for offer in plan.nearest],
        "lower_quant": _lower_json(plan),
        "api_prices": [
            {"provider": row.provider, "output_per_million": row.output_per_million,
             "input_per_million": row.input_per_million, "currency": row.currency, "date": row.date}
            for row in api_prices_of(plan.load.name)
        ],
    }  # fmt: skip


def _lower_json(plan: Plan) -> dict[str, object] | None:
    """The quant of the wanted model that meets the wishes, where the wanted one does not."""
    if plan.lower is None:
        return None
    offer, load = plan.lower
    return {
        "quant": load.quant, "file_gb": _round(load.file_gb), "quality_loss": loss_json(load),
        "build": offer_json(offer, plan.book.currency),
    }  # fmt: skip


def models_text(lang: str) -> str:
    """List the models of the catalogue with their sizes at Q4_K_M."""
    rows = [
        [model.name, number(model.params_b), number(model.active_params_b),
         number(model.size_gb["Q4_K_M"]) if "Q4_K_M" in model.size_gb else "-", ", ".join(model.size_gb)]
        for model in all_models()
    ]  # fmt: skip
    head = [say(key, lang) for key in ("m_model", "m_params", "m_active", "m_size", "m_quants")]
    # A narrow terminal has no room for the quants.
    kept = 5 if terminal_width() >= 130 else 4
    return table(head[:kept], [row[:kept] for row in rows], "lrrrl"[:kept])
