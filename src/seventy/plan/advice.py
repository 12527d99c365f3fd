"""What an experienced friend would say of a build: channels, memory, noise, better models, old prices, room to grow."""

from dataclasses import dataclass

from seventy.catalog.book import PriceBook
from seventy.catalog.traps import traps_of
from seventy.language import listed
from seventy.plan.builds import Build
from seventy.plan.machine import machine_from_cpu
from seventy.plan.memory import MODULE_GB, Dimms
from seventy.plan.models_front import readable, suggestions
from seventy.plan.rank import Constraints, Offer
from seventy.plan.roofline import Load, Prediction, predict
from seventy.runtime.memory import fitting_positions
from seventy.sizes import size

# Another model is named where it is this many times as fast.
FASTER_MODEL = 2
LONG_CONTEXT = 32768
# A model that takes more than this of what is free for it leaves no room for anything else.
TIGHT = 0.93
# A used card that people name first, its memory's bandwidth (NVIDIA's specification) and size.
GPU, GPU_GBS, GPU_GB = "RTX 3090 24GB", 936, 24
# A machine that draws this much doing nothing should sleep.
SLEEP_W = 90
# The memory people dream of when they buy 64 GB.
BIG_GB = 256
# NVIDIA's rating of the P106-100 (120 W); owners measure about 10 W idle.
P106_IDLE_W, P106_LOAD_W = 10, 120

Note = tuple[str, dict[str, object]]


def notes(offer: Offer, load: Load, wishes: Constraints, book: PriceBook, engine: str) -> list[Note]:
    """List warnings about a build, the most expensive mistake first."""
    build = offer.build
    found = [channel_note(build, load, book, engine), memory_note(build, load), noise_note(build, wishes)]
    found += [model_note(build, load, engine), price_note(build, book)]
    found += [tight_note(build, load), gpu_note(build, book), sleep_note(offer, book)]
    found += [note for note in build.prediction.machine.notes if note[0] in ("two_per_channel", "links_limit")]
    forms = {row.dimm_form for part in build.parts if (row := part.price) is not None and row.category == "ram"}
    found += [("n_trap", {"text": {"en": trap.en, "zh": trap.zh}})
              for trap in traps_of(build.platform.name, build.platform.socket, forms)]
    if engine == "seventy":
        found.append(("seventy_aim", {}))
    if build.sockets > 1 and build.prediction.tuned:
        found.append(("n_numa", {"default": build.prediction.decode.mid, "tuned": build.prediction.tuned.mid}))
    if build.uncertain:
        found.append(("n_range", {"low": build.price_low, "high": build.price_high, "currency": book.currency}))
    if build.blanks:
        found.append(("n_blank", {"parts": listed(build.blanks)}))
    if offer.cost.estimated:
        found.append(("n_watts", {}))
    return [note for note in found if note is not None]


def filled(build: Build, load: Load, engine: str) -> tuple[Dimms, Prediction] | None:
    """Return the build with a module in every channel and its prediction; None if none is free or slots lack."""
    have, total = build.channels
    if have >= total or build.platform.dimm_form == "soldered":
        return None
    dimms = Dimms(round(total), build.dimms.gb, build.dimms.mts)
    return dimms, predict(
        machine_from_cpu(build.cpu, build.sockets, dimms, printed=True), load, build.prediction.context, engine
    )


def channel_note(build: Build, load: Load, book: PriceBook, engine: str) -> Note | None:
    better = filled(build, load, engine)
    if better is None:
        return None
    have, total = build.channels
    dimms, found = better
    memory = next((part for part in build.parts if part.count == build.dimms.count and "GB" in part.label), None)
    more = (dimms.count - build.dimms.count) * (memory.total or 0) / memory.count if memory else 0.0
    return ("n_channels", {"empty": total - have, "total": total, "now": build.prediction.decode.mid,
                           "then": found.decode.mid, "dimms": str(dimms), "more": more,
                           "currency": book.currency})  # fmt: skip


def memory_note(build: Build, load: Load) -> Note | None:
    need, room = load.need(LONG_CONTEXT), build.dimms.room_bytes
    if need.total <= room:
        return None
    most = fitting_positions(load.footprint, room)
    return ("n_context", {"have": size(build.dimms.nbytes), "context": LONG_CONTEXT, "needs": size(need.total),
                          "most": most})  # fmt: skip


def noise_note(build: Build, wishes: Constraints) -> Note | None:
    loud = build.platform.noise_class == "loud" or build.platform.rack
    if loud and wishes.place != "rack":
        return ("n_loud", {"platform": build.platform.name})
    return None


def model_note(build: Build, load: Load, engine: str) -> Note | None:
    """Suggest another model that the machine runs several times as fast, by the best published score."""
    found = build.prediction
    # Other models are compared as one user alone has them.
    now = found if found.users == 1 else predict(found.machine, load, found.context, engine)
    faster = [each for each in suggestions(found.machine, engine)
              if each.prediction.decode.mid >= FASTER_MODEL * now.decode.mid]  # fmt: skip
    each = readable(faster)
    if each is None:
        return None
    return ("n_model", {**each.values, "speed": each.prediction.decode.mid,
                        "gain": each.prediction.decode.mid / now.decode.mid})  # fmt: skip


def tight_note(build: Build, load: Load) -> Note | None:
    """Warn that little memory is left beside the model."""
    need, room = build.prediction.need.total, build.dimms.room_bytes
    if need < TIGHT * room:
        return None
    return ("n_tight", {"needs": size(need), "room": size(room), "have": size(build.dimms.nbytes)})


def gpu_note(build: Build, book: PriceBook) -> Note | None:
    """Name a used graphics card for the same money, if the build costs as much as one."""
    card = book.part("gpu", GPU)
    if card.price is None or build.price < card.bounds[1]:
        return None
    low, high = card.bounds
    return ("n_gpu", {"card": GPU, "low": f"{low:,.0f}", "high": f"{high:,.0f}", "currency": book.currency,
                      "gbs": GPU_GBS, "gb": GPU_GB})  # fmt: skip


def sleep_note(offer: Offer, book: PriceBook) -> Note | None:
    if offer.cost.idle_w < SLEEP_W:
        return None
    return ("n_sleep", {"idle": offer.cost.idle_w, "year": offer.cost.idle_per_year, "currency": book.currency})


def price_note(build: Build, book: PriceBook) -> Note | None:
    """Note the oldest price that could not be converted to the current month."""
    old = [part for part in build.parts if part.stale_months and not part.carried]
    if not old:
        return None
    worst = max(old, key=lambda part: part.stale_months)
    row = worst.price
    return ("n_stale", {"part": worst.label, "date": row.date if row else "", "months": worst.stale_months,
                        "month": book.month})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Growth:
    """The upgrades that a build still allows."""

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
        (BIG_GB / gb * book.each(row), f"{BIG_GB / gb:g}x{gb:g}@{mts}")
        for gb, mts, row in book.modules(platform.mem_type, platform.dimm_form)
        if BIG_GB % gb == 0 and BIG_GB / gb <= platform.dimm_slots
    )
    big = offers[0] if offers and most >= BIG_GB > build.dimms.total_gb else (None, "")
    gpu = book.part("gpu", "P106-100 6GB").price
    has_slot = bool(platform.pcie_slots) and "none" not in platform.pcie_slots
    return Growth(
        max(0, platform.dimm_slots - build.dimms.count), most, platform.sockets > build.sockets,
        platform.pcie_slots, cpu_price.each if cpu_price else None, big[1], big[0],
        gpu.low if gpu and has_slot else None, gpu.high if gpu and has_slot else None,
        book.currency,
    )  # fmt: skip
