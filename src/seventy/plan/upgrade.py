"""What to add to a machine one has: channels, faster or larger modules, a CPU, or another model instead.

Steps stay within what the platform takes where it is known: its sockets, its slots, its kind of module.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from seventy.catalog.book import PriceBook
from seventy.catalog.cpus import Cpu, all_cpus
from seventy.catalog.inferred import OTHER_SIZE
from seventy.plan import answers, drafts, show
from seventy.plan.builds import short_cpu
from seventy.plan.machine import Machine, machine_from_cpu
from seventy.plan.memory import Dimms, parse_dimms
from seventy.plan.models_front import suggestions
from seventy.plan.owned import Owned
from seventy.plan.physics import form_of, sizes_of, slots_of
from seventy.plan.rank import SAME_SPEED
from seventy.plan.roofline import Load, Prediction, predict
from seventy.plan.tables import table
from seventy.plan.words import number, say, unit
from seventy.sizes import size

# A step that gains less than this is not worth a line.
WORTH = 1.05
# Other models that are named.
_MODELS = 3


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An owned machine, and what is to run on it."""

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
    """An upgrade: its message key and values, the predicted speed, and its price from low to high (None if unknown)."""

    key: str
    values: dict[str, object]
    prediction: Prediction
    price: tuple[float, float] | None


def module_price(book: PriceBook, have: Owned, cpu: Cpu, gb: float, mts: int | None) -> tuple[float, float] | None:
    """Return the lowest and highest price of one module of this size and at least this speed.

    If only slower ones have a price, the fastest of them is taken with a wider range.
    """
    rows = [(speed, row) for found_gb, speed, row in book.modules(cpu.mem_type, form_of(cpu, have.platform))
            if found_gb == gb]  # fmt: skip
    form = have.dimms.form if have.dimms is not None else ""
    # RDIMMs and LRDIMMs do not mix.
    alike = [(speed, row) for speed, row in rows if row.dimm_form == form]
    offers = [(speed, book.each(row), book.line("", 1, row).bounds) for speed, row in alike or rows]
    fast = [offer[1:] for offer in offers if offer[0] >= (mts or 0)]
    if fast or not offers:
        return min(fast)[1] if fast else None
    low, high = max(offers)[2]
    return low * OTHER_SIZE[0], high * OTHER_SIZE[1]


def times(price: tuple[float, float] | None, count: int) -> tuple[float, float] | None:
    return None if price is None else (price[0] * count, price[1] * count)


def steps(have: Upgrade, book: PriceBook) -> list[Step]:
    """List the upgrades worth their while, the greatest gain first and of equal ones the cheaper; other models last."""
    machine, dimms = have.machine, have.owned.dimms
    now = have.with_machine(machine)
    found: list[Step] = []
    if machine.cpu is not None and dimms is not None and not machine.cpu.soldered:
        board = _Board(machine.cpu, dimms, have, book)
        found += [*_memory_steps(board), *_cpu_steps(board)]
    if now.tuned is not None:
        found.append(Step("u_tune", {}, replace(now, decode=now.tuned), (0.0, 0.0)))
    # Filling every channel may be what holds the model, too: said once.
    once = {str(step.values.get("dimms", step.key)) + str(step.values.get("cpu", "")): step for step in reversed(found)}
    worth = [step for step in once.values() if step.prediction.decode.mid > now.decode.mid * WORTH]
    return by_gain(worth) + list(_model_steps(have, now))


def by_gain(found: Sequence[Step]) -> list[Step]:
    """Order steps by speed; what is about as fast as the fastest left goes by price, what has no price last."""
    ordered, result = sorted(found, key=lambda step: -step.prediction.decode.mid), list[Step]()
    while ordered:
        least = ordered[0].prediction.decode.mid / SAME_SPEED
        same = [step for step in ordered if step.prediction.decode.mid >= least]
        result += sorted(same, key=lambda step: sum(step.price) if step.price else float("inf"))
        ordered = ordered[len(same) :]
    return result


@dataclass(frozen=True, slots=True)
class _Board:
    """A machine whose memory and CPUs can be changed: how many channels and slots it has, and of which sizes."""

    cpu: Cpu
    dimms: Dimms
    have: Upgrade
    book: PriceBook

    @property
    def sockets(self) -> int:
        return self.have.machine.sockets

    @property
    def channels(self) -> int:
        return round(self.cpu.mem_channels * self.sockets)

    @property
    def slots(self) -> int:
        return slots_of(self.cpu, self.sockets, self.have.owned.platform)

    def holds(self, dimms: Dimms) -> bool:
        """Return whether these modules hold the model and every user's text."""
        return self.have.need <= dimms.room_bytes

    def step(self, key: str, new: Dimms, bought: int) -> Step:
        """Make the step to these modules, of which `bought` are new."""
        price = times(module_price(self.book, self.have.owned, self.cpu, new.gb, new.mts), bought)
        return Step(key, {"dimms": str(new)}, self.have.with_dimms(self.cpu, self.sockets, new), price)

    def sizes(self) -> list[float]:
        """List the sizes of modules in GB that fit, ascending."""
        return [float(gb) for gb in sizes_of(self.cpu, self.have.owned.platform)]


def _memory_steps(board: _Board) -> Iterator[Step]:
    dimms, full = board.dimms, replace(board.dimms, count=min(board.channels, board.slots))
    if dimms.count < full.count:
        if board.holds(full):
            yield board.step("u_fill", full, full.count - dimms.count)
        # Smaller modules in every channel, the old ones sold.
        smaller = [replace(full, gb=gb, mts=None) for gb in board.sizes() if gb < dimms.gb]
        yield from [board.step("u_replace", each, full.count) for each in smaller if board.holds(each)][:1]
    if not board.holds(dimms):
        if enough := _larger(board):
            yield min(enough, key=lambda each: sum(each.price) if each.price else float("inf"))
    elif (dimms.mts or board.cpu.mem_speed_mts) < board.cpu.mem_speed_mts:
        yield board.step("u_faster", replace(dimms, mts=board.cpu.mem_speed_mts), dimms.count)


def _larger(board: _Board) -> list[Step]:
    """Every set of modules that holds the model where the present one does not: more of them, or larger ones."""
    dimms, found = board.dimms, []
    for gb in board.sizes():
        for count in (board.channels, 2 * board.channels):
            new = replace(dimms, count=count, gb=gb, mts=dimms.mts if gb == dimms.gb else None)
            is_more = gb != dimms.gb or count > dimms.count
            if count <= board.slots and is_more and board.holds(new):
                found.append(board.step("u_more", new, count - (dimms.count if gb == dimms.gb else 0)))
    return found


def _cpu_steps(board: _Board) -> Iterator[Step]:
    cpu, platform = board.cpu, board.have.owned.platform
    room_for_two = platform.sockets > board.sockets if platform is not None else cpu.max_sockets > 1
    if board.sockets == 1 and room_for_two and cpu.max_sockets > 1:
        yield _second_cpu(board)
    yield from by_gain([_other_cpu(board, other) for other in _rivals(board)])[:1]


def _other_cpu(board: _Board, other: Cpu) -> Step:
    """The step to another CPU in each socket, with the modules that are there."""
    prediction = board.have.with_dimms(other, board.sockets, board.dimms)
    part = board.book.part("cpu", other.name, board.sockets)
    return Step("u_cpu", {"cpu": short_cpu(other)}, prediction, part.bounds)


def _second_cpu(board: _Board) -> Step:
    """The step to a second CPU of the same kind, with a module in each of its channels."""
    cpu, dimms = board.cpu, board.dimms
    new = replace(dimms, count=max(dimms.count, round(2 * cpu.mem_channels)))
    part = board.book.part("cpu", cpu.name)
    more = times(module_price(board.book, board.have.owned, cpu, dimms.gb, dimms.mts), new.count - dimms.count)
    price = None if part.price is None or more is None else (part.bounds[0] + more[0], part.bounds[1] + more[1])
    key = "u_second" if board.have.owned.platform is not None else "u_second_board"
    return Step(key, {"cpu": short_cpu(cpu), "dimms": str(new)}, board.have.with_dimms(cpu, 2, new), price)


def _rivals(board: _Board) -> Iterator[Cpu]:
    """Other CPUs that fit the socket and the memory, and that a source has a price for."""
    cpu, platform = board.cpu, board.have.owned.platform
    microarchs = platform.microarchs.split(";") if platform is not None else [cpu.microarch]
    for other in all_cpus():
        fits = (other.socket, other.mem_type, other.registered) == (cpu.socket, cpu.mem_type, cpu.registered)
        if other.name == cpu.name or not fits or other.max_sockets < board.sockets or other.microarch not in microarchs:
            continue
        if other.cores < cpu.cores and other.mem_speed_mts <= cpu.mem_speed_mts:
            # What fewer cores save in waiting for each other, fewer threads save for nothing.
            continue
        row = board.book.part("cpu", other.name).price
        if row and not row.inferred:
            yield other


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
    return f"{low:,.0f} {unit(currency, lang)}" if low == high else f"{low:,.0f} - {high:,.0f} {unit(currency, lang)}"


def _adds_to(step: Step, have: Upgrade) -> bool:
    """Whether registered DDR4 modules are added to others that are kept."""
    cpu, dimms = have.machine.cpu, have.owned.dimms
    if cpu is None or dimms is None or not cpu.registered or cpu.mem_type != "DDR4":
        return False
    new = parse_dimms(str(step.values["dimms"])) if "dimms" in step.values else dimms
    return new.count > dimms.count and new.gb == dimms.gb


def as_text(have: Upgrade, book: PriceBook, lang: str) -> str:
    """Format the upgrades as a table, with what to check before buying."""
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
    if any(_adds_to(step, have) for step in found):
        lines.append("! " + say("u_kind", lang))
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
