"""What to add to a machine one has: channels, faster modules, another CPU, a second one, another kind of model."""

from dataclasses import dataclass

from seventy.catalog.cpus import Cpu, all_cpus
from seventy.catalog.models import all_models
from seventy.catalog.prices import PriceBook
from seventy.plan import answers
from seventy.plan.builds import MODULE_GB, short_cpu
from seventy.plan.machine import Machine, machine_from_cpu
from seventy.plan.memory import Dimms
from seventy.plan.roofline import Load, Prediction, predict
from seventy.plan.runs import marked, why_not_model
from seventy.plan.tables import table
from seventy.plan.wanted import catalogue_load
from seventy.plan.words import number, say
from seventy.sizes import size

# A step that gains less than this is not worth a line.
WORTH = 1.05


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What a person has and wants to run on it; `dimms` are None where nobody knows the modules."""

    machine: Machine
    dimms: Dimms | None
    load: Load
    context: int
    engine: str


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to add: message key and values, what it gives, what it costs (None where no price is known)."""

    key: str
    values: dict[str, object]
    prediction: Prediction
    price: float | None


def _form(cpu: Cpu) -> str:
    return "RDIMM" if cpu.server_memory else "SODIMM" if cpu.socket.startswith(("FP", "FCBGA", "mobile")) else "UDIMM"


def module_price(book: PriceBook, cpu: Cpu, gb: float, mts: int | None) -> float | None:
    """The price of one module of this size and at least this speed."""
    offers = [
        (speed, row.each * book.ram_factor)
        for size, speed, row in book.modules(cpu.mem_type, _form(cpu))
        if size == gb and speed >= (mts or 0)
    ]
    return min(price for _, price in offers) if offers else None


def steps(have: Upgrade, book: PriceBook) -> list[Step]:
    """What is worth adding, the greatest gain first."""
    machine, dimms, load, context, engine = have.machine, have.dimms, have.load, have.context, have.engine
    cpu = machine.cpu
    now = predict(machine, load, context, engine)
    found: list[Step] = []
    if cpu is not None and not cpu.soldered:
        # Nobody knows the modules: one of about what the system shows.
        modules = dimms or Dimms(1, max(1, round((machine.memory_bytes or 8 * 2**30) / 2**30)), None)
        found += _memory_steps(cpu, machine, modules, load, context, engine, book)
        if dimms is not None:
            found += _cpu_steps(cpu, machine, dimms, load, context, engine, book)
    found += _mixture_step(machine, load, context, engine)
    worth = [step for step in found if step.prediction.decode.mid > now.decode.mid * WORTH]
    return sorted(worth, key=lambda step: -step.prediction.decode.mid)


def _memory_steps(cpu: Cpu, machine: Machine, dimms: Dimms, load: Load, context: int, engine: str, book: PriceBook
                  ) -> list[Step]:  # fmt: skip
    found = []
    total = round(cpu.mem_channels * machine.sockets)
    need = load.need(context).total

    def step(key: str, new: Dimms, bought: int) -> Step:
        price = module_price(book, cpu, new.gb, new.mts)
        return Step(key, {"dimms": str(new)},
                    predict(machine_from_cpu(cpu, machine.sockets, new, machine.ssd_gbs), load, context, engine),
                    price * bought if price is not None else None)  # fmt: skip

    if dimms.count < total and need <= Dimms(total, dimms.gb, None).room_bytes:
        found.append(step("u_fill", Dimms(total, dimms.gb, dimms.mts), total - dimms.count))
    if (dimms.mts or cpu.mem_speed_mts) < cpu.mem_speed_mts and need <= dimms.room_bytes:
        found.append(step("u_faster", Dimms(dimms.count, dimms.gb, cpu.mem_speed_mts), dimms.count))
    if need > dimms.room_bytes:
        for gb in MODULE_GB.get((cpu.mem_type, _form(cpu)), ()):
            if need <= Dimms(total, gb, None).room_bytes:
                found.append(step("u_more", Dimms(total, float(gb), dimms.mts), total))
                break
    return found


def _cpu_steps(cpu: Cpu, machine: Machine, dimms: Dimms, load: Load, context: int, engine: str, book: PriceBook
               ) -> list[Step]:  # fmt: skip
    found = []
    if machine.sockets == 1 and cpu.max_sockets > 1:
        new = Dimms(max(dimms.count, round(2 * cpu.mem_channels)), dimms.gb, dimms.mts)
        price, memory = book.part("cpu", cpu.name).total, module_price(book, cpu, dimms.gb, dimms.mts)
        known = price is not None and memory is not None
        found.append(Step(
            "u_second", {"cpu": short_cpu(cpu), "dimms": str(new)},
            predict(machine_from_cpu(cpu, 2, new), load, context, engine),
            (price or 0) + (memory or 0) * (new.count - dimms.count) if known else None,
        ))  # fmt: skip
    rivals = [
        other for other in all_cpus()
        if other.socket == cpu.socket and other.mem_type == cpu.mem_type and other.name != cpu.name
        and other.microarch.split("-")[-1] == cpu.microarch.split("-")[-1]
        and other.max_sockets >= machine.sockets and book.part("cpu", other.name).total is not None
    ]  # fmt: skip
    best: Step | None = None
    for other in rivals:
        found_here = predict(machine_from_cpu(other, machine.sockets, dimms), load, context, engine)
        if best is None or found_here.decode.mid > best.prediction.decode.mid:
            price = book.part("cpu", other.name).total
            best = Step("u_cpu", {"cpu": short_cpu(other)}, found_here, (price or 0) * machine.sockets)
    return found + ([best] if best else [])


def _mixture_step(machine: Machine, load: Load, context: int, engine: str) -> list[Step]:
    if load.mixture:
        return []
    best: Step | None = None
    for model in all_models():
        if not model.mixture or model.params_b < 25 or "Q4_K_M" not in model.size_gb:
            continue
        if why_not_model(engine, model, "Q4_K_M"):
            continue
        other = catalogue_load(model.name, "Q4_K_M")
        if not machine.holds(other.need(context)):
            continue
        if best is None or model.params_b > best.prediction.load.params_b:
            best = Step("u_mixture", {"model": marked(model, "Q4_K_M")}, predict(machine, other, context, engine), 0.0)
    return [best] if best else []


def as_text(have: Upgrade, book: PriceBook, lang: str) -> str:
    """The steps as a table, and what to check before buying."""
    now = predict(have.machine, have.load, have.context, have.engine)
    found = steps(have, book)
    memory = str(have.dimms or size(have.machine.memory_bytes or 0))
    title = say("u_title", lang, {"name": have.machine.name, "memory": memory, "speed": now.decode.mid})
    lines = [f"{have.load.name} {have.load.quant}", title, answers.reason(now, lang)]
    if not found:
        lines.append(say("u_nothing", lang))
    else:
        rows = []
        for step in found:
            decode = step.prediction.decode
            price = "-" if step.price == 0 else say("d_no_price", lang) if step.price is None else (
                f"{step.price:,.0f} {book.currency}")  # fmt: skip
            rows.append([say(step.key, lang, step.values), f"{number(decode.mid)} ({number(decode.low)}-"
                         f"{number(decode.high)})", f"{decode.mid / now.decode.mid:.1f}x", price])  # fmt: skip
        lines.append(table([say(key, lang) for key in ("u_step", "u_then", "u_gain", "u_price")], rows, "lrrr"))
    lines += [say(key, lang, values) for key, values in have.machine.notes]
    lines.append(say("u_settings", lang))
    return "\n".join(lines)


def as_json(have: Upgrade, book: PriceBook, lang: str) -> dict[str, object]:
    now = predict(have.machine, have.load, have.context, have.engine)
    return {
        "now": answers.as_json(now, lang),
        "steps": [
            {
                "step": say(step.key, lang, step.values), "kind": step.key.removeprefix("u_"),
                "decode_tok_s": answers.band_json(step.prediction.decode),
                "gain": round(step.prediction.decode.mid / now.decode.mid, 2), "price": step.price,
                "currency": book.currency,
            }
            for step in steps(have, book)
        ],
    }  # fmt: skip
