"""What to add to a machine one has: channels, faster or larger modules, a CPU, or another model instead.

Steps stay within what the platform takes where it is known: its sockets, its slots, its kind of module.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from seventy.catalog.book import PriceBook
from seventy.catalog.cpus import Cpu, all_cpus
from seventy.catalog.inferred import OTHER_SIZE
from seventy.plan import answers, drafts, show
from seventy.plan.builds import short_cpu
from seventy.plan.machine import Machine, machine_from_cpu
from seventy.plan.memory import Dimms
from seventy.plan.models_front import suggestions
from seventy.plan.owned import Owned
from seventy.plan.physics import form_of, sizes_of, slots_of
from seventy.plan.roofline import Load, Prediction, predict
from seventy.plan.tables import table
from seventy.plan.words import number, say
from seventy.sizes import size

# A step that gains less than this is not worth a line.
WORTH = 1.05
# Other models that are named.
_MODELS = 3


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What a person has and wants to run on it."""

    owned: Owned
    load: Load
    context: int
    engine: str
    users: int = 1

    @property
    def need(self) -> int:
        """Bytes that the model and every user's text take."""
        return self.load.need(self.context, self.users).total

    @property
    def machine(self) -> Machine:
        return self.owned.machine

    def with_machine(self, machine: Machine) -> Prediction:
        return predict(machine, self.load, self.context, self.engine, users=self.users)

    def with_dimms(self, cpu: Cpu, sockets: int, dimms: Dimms) -> Prediction:
        return self.with_machine(machine_from_cpu(cpu, sockets, dimms, self.machine.ssd_gbs, printed=True))


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to add: message key and values, what it gives, what it costs at least and at most (None: unknown)."""

    key: str
    values: dict[str, object]
    prediction: Prediction
    price: tuple[float, float] | None


def module_price(book: PriceBook, have: Owned, cpu: Cpu, gb: float, mts: int | None) -> tuple[float, float] | None:
    """The least and the most that one module of this size and at least this speed costs.

    Where only slower ones have a price, the fastest of them stands in with a wider range.
    """
    offers = [
        (speed, book.each(row), book.line("", 1, row).bounds)
        for found_gb, speed, row in book.modules(cpu.mem_type, form_of(cpu, have.platform))
        if found_gb == gb
    ]
    fast = [offer[1:] for offer in offers if offer[0] >= (mts or 0)]
    if fast or not offers:
        return min(fast)[1] if fast else None
    low, high = max(offers)[2]
    return low * OTHER_SIZE[0], high * OTHER_SIZE[1]


def times(price: tuple[float, float] | None, count: int) -> tuple[float, float] | None:
    return None if price is None else (price[0] * count, price[1] * count)


def steps(have: Upgrade, book: PriceBook) -> list[Step]:
    """What is worth adding, the greatest gain first; other models last."""
    machine, dimms = have.machine, have.owned.dimms
    now = have.with_machine(machine)
    found: list[Step] = []
    if machine.cpu is not None and dimms is not None and not machine.cpu.soldered:
        found += _memory_steps(machine.cpu, dimms, have, book)
        found += _cpu_steps(machine.cpu, dimms, have, book)
    if now.tuned is not None:
        found.append(Step("u_tune", {}, replace(now, decode=now.tuned), (0.0, 0.0)))
    worth = [step for step in found if step.prediction.decode.mid > now.decode.mid * WORTH]
    return sorted(worth, key=lambda step: -step.prediction.decode.mid) + list(_model_steps(have, now))


def _memory_steps(cpu: Cpu, dimms: Dimms, have: Upgrade, book: PriceBook) -> Iterator[Step]:
    sockets, need = have.machine.sockets, have.need
    channels, slots = round(cpu.mem_channels * sockets), slots_of(cpu, sockets, have.owned.platform)

    def step(key: str, new: Dimms, bought: int) -> Step:
        price = times(module_price(book, have.owned, cpu, new.gb, new.mts), bought)
        return Step(key, {"dimms": str(new)}, have.with_dimms(cpu, sockets, new), price)

    full = replace(dimms, count=min(channels, slots))
    if dimms.count < full.count and need <= full.room_bytes:
        yield step("u_fill", full, full.count - dimms.count)
    if dimms.count < full.count:
        # Smaller modules in every channel, the old ones sold.
        smaller = [step("u_replace", replace(full, gb=float(gb), mts=None), full.count)
                   for gb in sizes_of(cpu, have.owned.platform)
                   if gb < dimms.gb and need <= replace(full, gb=float(gb)).room_bytes]
        yield from smaller[:1]
    faster = replace(dimms, mts=cpu.mem_speed_mts)
    if (dimms.mts or cpu.mem_speed_mts) < cpu.mem_speed_mts and need <= dimms.room_bytes:
        yield step("u_faster", faster, dimms.count)
    if need > dimms.room_bytes:
        ways = [replace(dimms, count=count, gb=float(gb), mts=dimms.mts if gb == dimms.gb else None)
                for gb in sizes_of(cpu, have.owned.platform) for count in (channels, 2 * channels) if count <= slots]
        enough = [step("u_more", way, way.count - (dimms.count if way.gb == dimms.gb else 0))
                  for way in ways if need <= way.room_bytes and (way.gb != dimms.gb or way.count > dimms.count)]
        if enough:
            yield min(enough, key=lambda each: sum(each.price) if each.price else float("inf"))


def _cpu_steps(cpu: Cpu, dimms: Dimms, have: Upgrade, book: PriceBook) -> Iterator[Step]:
    sockets, platform = have.machine.sockets, have.owned.platform
    room_for_two = platform.sockets > sockets if platform is not None else cpu.max_sockets > 1
    if sockets == 1 and room_for_two and cpu.max_sockets > 1:
        new = replace(dimms, count=max(dimms.count, round(2 * cpu.mem_channels)))
        part, memory = book.part("cpu", cpu.name), module_price(book, have.owned, cpu, dimms.gb, dimms.mts)
        more = times(memory, new.count - dimms.count)
        price = None if part.price is None or more is None else (part.bounds[0] + more[0], part.bounds[1] + more[1])
        key = "u_second" if platform is not None else "u_second_board"
        yield Step(key, {"cpu": short_cpu(cpu), "dimms": str(new)}, have.with_dimms(cpu, 2, new), price)
    takes = set(platform.microarchs.split(";")) if platform is not None else None
    rivals = [
        other for other in all_cpus()
        if other.socket == cpu.socket and other.mem_type == cpu.mem_type and other.name != cpu.name
        and (other.microarch in takes if takes is not None else other.microarch == cpu.microarch)
        and other.max_sockets >= sockets and other.registered == cpu.registered
        and (row := book.part("cpu", other.name).price) and not row.inferred
    ]  # fmt: skip
    found = [(have.with_dimms(other, sockets, dimms), other) for other in rivals]
    if found:
        prediction, other = max(found, key=lambda pair: pair[0].decode.mid)
        part = book.part("cpu", other.name, sockets)
        yield Step("u_cpu", {"cpu": short_cpu(other)}, prediction, part.bounds)


def _model_steps(have: Upgrade, now: Prediction) -> Iterator[Step]:
    """Models that would run faster on the machine as it is, by score: no more than a few."""
    faster = [each for each in suggestions(have.machine, have.engine, have.context, have.users)
              if each.prediction.decode.mid > now.decode.mid * WORTH]  # fmt: skip
    for each in faster[:_MODELS]:
        yield Step("u_model", each.values, each.prediction, (0.0, 0.0))


def _price_text(price: tuple[float, float] | None, currency: str, lang: str) -> str:
    if price is None:
        return say("d_no_price", lang)
    low, high = price
    if high == 0:
        return "-"
    return f"{low:,.0f} {currency}" if low == high else f"{low:,.0f} - {high:,.0f} {currency}"


def as_text(have: Upgrade, book: PriceBook, lang: str) -> str:
    """The steps as a table, and what to check before buying."""
    now = have.with_machine(have.machine)
    found = steps(have, book)
    memory = str(have.owned.dimms or size(have.machine.memory_bytes or 0))
    name = have.machine.name
    if have.owned.platform is not None:
        name = f"{have.owned.platform.name} · {name}"
    values = {"name": name, "memory": memory, "speed": now.decode.mid, "low": now.decode.low, "high": now.decode.high}
    lines = [f"{have.load.name} {have.load.quant}", say("u_title", lang, values), answers.reason(now, lang)]
    lines += [show.household(now, lang)] if have.users > 1 else []
    lines += drafts.lines(now, lang)
    lines += ["! " + say(key, lang, values) for key, values in have.machine.notes]
    if not found:
        lines.append(say("u_nothing", lang))
    else:
        rows = [
            [say(step.key, lang, step.values),
             f"{number(step.prediction.decode.mid)} ({number(step.prediction.decode.low)}-"
             f"{number(step.prediction.decode.high)})",
             f"{step.prediction.decode.mid / now.decode.mid:.1f}x", _price_text(step.price, book.currency, lang)]
            for step in found
        ]  # fmt: skip
        head = [say(key, lang) for key in ("u_step", "u_then", "u_gain", "u_price")]
        lines.append(table(head, rows, "lrrr", wrap=True))
        lines.append(say("u_prices", lang, {"region": book.region, "month": book.month}))
    lines.append(say("u_settings" if have.machine.sockets == 1 else "u_settings_two", lang))
    return "\n".join(lines)


def as_json(have: Upgrade, book: PriceBook, lang: str) -> dict[str, object]:
    now = have.with_machine(have.machine)
    platform = have.owned.platform
    return {
        "platform": platform.name if platform is not None else None,
        "memory": str(have.owned.dimms) if have.owned.dimms else None,
        "now": answers.as_json(now, lang) | answers.drafts_json(now),
        "prices": {"region": book.region, "currency": book.currency, "month": book.month},
        "steps": [
            {
                "step": say(step.key, lang, step.values), "kind": step.key.removeprefix("u_"),
                "decode_tok_s": answers.band_json(step.prediction.decode),
                "gain": round(step.prediction.decode.mid / now.decode.mid, 2),
                "price": None if step.price is None else round((step.price[0] * step.price[1]) ** 0.5, 2),
                "price_low": step.price and round(step.price[0], 2),
                "price_high": step.price and round(step.price[1], 2), "currency": book.currency,
            }
            for step in steps(have, book)
        ],
    }  # fmt: skip
