"""What an experienced friend would say of a build: channels, memory, noise, better models, old prices, room to grow."""

from dataclasses import dataclass

from seventy.catalog.models import all_models
from seventy.catalog.prices import PriceBook
from seventy.plan.builds import MODULE_GB, Build
from seventy.plan.machine import machine_from_cpu
from seventy.plan.memory import Dimms
from seventy.plan.rank import Offer, Wishes
from seventy.plan.roofline import Load, Prediction, predict
from seventy.plan.runs import marked, why_not_model
from seventy.plan.wanted import catalogue_load
from seventy.runtime.memory import USUAL_CONTEXT, fitting_positions
from seventy.sizes import size

# A mixture of experts worth naming must be a large model still, and this many times as fast.
MIXTURE_PARAMS_B, MIXTURE_GAIN = 25, 3
LONG_CONTEXT = 32768
# The memory people dream of when they buy 64 GB.
BIG_GB = 256
# NVIDIA's rating of the P106-100 (120 W); owners measure about 10 W idle.
P106_IDLE_W, P106_LOAD_W = 10, 120

Note = tuple[str, dict[str, object]]


def notes(offer: Offer, load: Load, wishes: Wishes, book: PriceBook, engine: str) -> list[Note]:
    """Warnings about a build, the most expensive mistake first."""
    build = offer.build
    found = [channel_note(build, load, engine), memory_note(build, load), noise_note(build, wishes)]
    found += [mixture_note(build, load, engine), price_note(build, book)]
    found += [note for note in build.prediction.machine.notes if note[0] in ("two_per_channel", "links_limit")]
    if engine == "seventy":
        found.append(("seventy_aim", {}))
    if build.sockets > 1:
        found.append(("n_numa", {}))
    if build.price_low != build.price_high:
        found.append(("n_range", {"low": build.price_low, "high": build.price_high, "currency": book.currency}))
    if build.blanks:
        found.append(("n_blank", {"parts": ", ".join(build.blanks)}))
    if offer.cost.estimated:
        found.append(("n_watts", {}))
    return [note for note in found if note is not None]


def filled(build: Build, load: Load, engine: str) -> tuple[Dimms, Prediction] | None:
    """The same build with a module in every channel, where some are empty and slots allow it."""
    have, total = build.channels
    if have >= total or build.platform.dimm_form == "soldered":
        return None
    dimms = Dimms(round(total), build.dimms.gb, build.dimms.mts)
    return dimms, predict(
        machine_from_cpu(build.cpu, build.sockets, dimms, printed=True), load, build.prediction.context, engine
    )


def channel_note(build: Build, load: Load, engine: str) -> Note | None:
    better = filled(build, load, engine)
    if better is None:
        return None
    have, total = build.channels
    dimms, found = better
    memory = next((part for part in build.parts if part.count == build.dimms.count and "GB" in part.label), None)
    more = (dimms.count - build.dimms.count) * (memory.total or 0) / memory.count if memory else 0.0
    return ("n_channels", {"empty": total - have, "total": total, "now": build.prediction.decode.mid,
                           "then": found.decode.mid, "dimms": str(dimms), "more": more})  # fmt: skip


def memory_note(build: Build, load: Load) -> Note | None:
    need, room = load.need(LONG_CONTEXT), build.dimms.room_bytes
    if need.total <= room:
        return None
    most = fitting_positions(load.footprint, room)
    return ("n_context", {"have": size(build.dimms.nbytes), "context": LONG_CONTEXT, "needs": size(need.total),
                          "most": most})  # fmt: skip


def noise_note(build: Build, wishes: Wishes) -> Note | None:
    loud = build.platform.noise_class == "loud" or build.platform.rack
    if loud and wishes.place != "rack":
        return ("n_loud", {"platform": build.platform.name})
    return None


def mixture_note(build: Build, load: Load, engine: str) -> Note | None:
    """The largest mixture of experts that fits the same memory and is far faster."""
    if load.mixture:
        return None
    best: tuple[float, Load, Prediction, str] | None = None
    for model in all_models():
        if not model.mixture or model.params_b < MIXTURE_PARAMS_B or "Q4_K_M" not in model.size_gb:
            continue
        if why_not_model(engine, model, "Q4_K_M"):
            continue
        candidate = catalogue_load(model.name, "Q4_K_M")
        if candidate.need(USUAL_CONTEXT).total > build.dimms.room_bytes:
            continue
        found = predict(build.prediction.machine, candidate, USUAL_CONTEXT, engine)
        gain = found.decode.mid / build.prediction.decode.mid
        if gain >= MIXTURE_GAIN and (best is None or candidate.params_b > best[1].params_b):
            best = (gain, candidate, found, marked(model, "Q4_K_M"))
    if best is None:
        return None
    gain, candidate, found, name = best
    return ("n_mixture", {"model": name, "params": candidate.params_b, "active": candidate.active_params_b,
                          "speed": found.decode.mid, "gain": gain})  # fmt: skip


def price_note(build: Build, book: PriceBook) -> Note | None:
    old = [part for part in build.parts if part.stale_months]
    if not old:
        return None
    worst = max(old, key=lambda part: part.stale_months)
    row = worst.price
    return ("n_stale", {"part": worst.label, "date": row.date if row else "", "months": worst.stale_months,
                        "month": book.month})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Growth:
    """What a build can still become."""

    free_slots: int
    max_gb: int
    second_cpu: bool
    pcie: str
    second_cpu_price: float | None
    big_modules: str
    big_price: float | None
    gpu_low: float | None
    gpu_high: float | None
    gpu_currency: str


def growth(build: Build, book: PriceBook) -> Growth:
    """Free DIMM slots, most memory, an empty socket, PCIe slots and what a P106-class card costs."""
    platform = build.platform
    sizes = MODULE_GB.get((platform.mem_type, platform.dimm_form), (0,))
    most = min(platform.max_mem_gb, platform.dimm_slots * max(sizes) or platform.max_mem_gb)
    cpu_price = book.part("cpu", build.cpu.name).price
    offers = sorted(
        (BIG_GB / gb * row.each * book.ram_factor, f"{BIG_GB / gb:g}x{gb:g}@{mts}")
        for gb, mts, row in book.modules(platform.mem_type, platform.dimm_form)
        if BIG_GB % gb == 0 and BIG_GB / gb <= platform.dimm_slots
    )
    big = offers[0] if offers and most >= BIG_GB > build.dimms.total_gb else (None, "")
    gpu = book.other("gpu").price
    has_slot = bool(platform.pcie_slots) and "none" not in platform.pcie_slots
    return Growth(
        max(0, platform.dimm_slots - build.dimms.count), most, platform.sockets > build.sockets,
        platform.pcie_slots, cpu_price.each if cpu_price else None, big[1], big[0],
        gpu.low if gpu and has_slot else None, gpu.high if gpu and has_slot else None,
        book.currency,
    )  # fmt: skip
