"""Enumerates complete machines: every platform, CPU, number of sockets and DIMM layout that fit together.

Only those that hold the model and have a price for every part become a `Build`; the others are counted, and the
platforms that lack nothing but a price are named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from seventy.catalog.cpus import Cpu
from seventy.catalog.platforms import Platform
from seventy.catalog.prices import Part, PriceBook, PriceRow
from seventy.errors import SeventyError
from seventy.plan.machine import machine_from_cpu
from seventy.plan.memory import Dimms
from seventy.plan.roofline import Load, Prediction, predict

# Sizes in GB that modules of a kind are made in.
MODULE_GB = {
    ("DDR3", "RDIMM"): (8, 16, 32), ("DDR3", "UDIMM"): (4, 8), ("DDR4", "RDIMM"): (8, 16, 32, 64, 128),
    ("DDR4", "UDIMM"): (8, 16, 32), ("DDR4", "SODIMM"): (8, 16, 32), ("DDR5", "RDIMM"): (16, 32, 64, 96, 128),
    ("DDR5", "UDIMM"): (16, 24, 32, 48, 64), ("DDR5", "SODIMM"): (16, 24, 32, 48),
}  # fmt: skip
# Parts that stand in a bill without a price: small, and boxed CPUs bring their own.
MAY_BE_BLANK = ("cooler",)
# Room on the drive beside the model: the system and a second model.
DRIVE_SPARE_GB = 100


@dataclass(frozen=True, slots=True)
class Build:
    """One machine to buy: its parts with their prices, its memory layout and what to expect of it."""

    platform: Platform
    cpu: Cpu
    sockets: int
    dimms: Dimms
    parts: tuple[Part, ...]
    price: float
    price_low: float
    price_high: float
    prediction: Prediction

    @property
    def channels(self) -> tuple[float, float]:
        """Channels that hold memory, and channels of the CPUs fitted."""
        return self.prediction.machine.channels, self.prediction.machine.channels_total

    @property
    def blanks(self) -> list[str]:
        """Parts whose price nobody knows: the build's price is without them."""
        return [part.label for part in self.parts if part.price is None]

    @property
    def oldest_months(self) -> int:
        """How much older than its snapshot the oldest stale price is; 0 where none is stale."""
        return max(part.stale_months for part in self.parts)

    @property
    def name(self) -> str:
        count = f"{self.sockets}x " if self.sockets > 1 else ""
        return f"{self.platform.name} · {count}{short_cpu(self.cpu)} · {self.dimms}"


@dataclass(slots=True)
class Census:
    """How many machines were looked at, and why those left out were."""

    looked_at: int = 0
    too_small: int = 0
    unpriced: int = 0
    builds: list[Build] = field(default_factory=list)
    unpriced_platforms: dict[str, set[str]] = field(default_factory=dict)


def short_cpu(cpu: Cpu) -> str:
    """The CPU's name without its maker: "Xeon E5-2680 v4"."""
    return cpu.name.split(" ", 1)[1] if cpu.vendor in ("Intel", "AMD") else cpu.name


def cpus_for(platform: Platform, cpus: Sequence[Cpu]) -> list[Cpu]:
    """The CPUs a platform takes, or the one it comes with."""
    if platform.cpu:
        return [cpu for cpu in cpus if cpu.name == platform.cpu]
    takes = set(platform.microarchs.split(";"))
    return [
        cpu for cpu in cpus
        if cpu.socket == platform.socket and cpu.microarch in takes
        and (platform.sockets == 1 or cpu.max_sockets > 1)
        and (platform.mem_type == cpu.mem_type or platform.mem_type in cpu.mem_second)
    ]  # fmt: skip


def layouts(platform: Platform, sockets: int) -> Iterator[tuple[int, float]]:
    """The sensible ways to fill the slots: equal modules, the same number on each socket; (modules, GB each)."""
    if platform.dimm_form == "soldered":
        yield 1, float(platform.max_mem_gb)
        return
    slots = platform.dimm_slots // platform.sockets
    channels = round(platform.channels_per_socket)
    counts = sorted({n for n in (1, 2, 3, 4, 6, 8, 12) if n <= channels} | {2 * channels, 3 * channels})
    for per_socket in counts:
        if per_socket > slots:
            continue
        for gb in MODULE_GB[(platform.mem_type, platform.dimm_form)]:
            # A module is bounded by the platform's limit spread over its slots, and may not pass it in total.
            if per_socket * sockets * gb <= platform.max_mem_gb * sockets / platform.sockets:
                yield per_socket * sockets, float(gb)


def enumerate_builds(
    load: Load, context: int, engine: str, book: PriceBook, platforms: Sequence[Platform], cpus: Sequence[Cpu],
    own_drive: bool = False,
) -> Census:  # fmt: skip
    """Looks at every machine the catalogue can make for this model."""
    census = Census()
    need = load.need(context)
    drive = None if own_drive else book.ssd(load.file_gb + DRIVE_SPARE_GB)
    predictions: dict[tuple[str, int, float, int], Prediction] = {}
    for platform in platforms:
        body = _body_parts(platform, book)
        modules: dict[float, list[tuple[int, PriceRow]]] = {}
        if platform.dimm_form != "soldered":
            for gb, mts, row in book.modules(platform.mem_type, platform.dimm_form):
                modules.setdefault(gb, []).append((mts, row))
        for cpu in cpus_for(platform, cpus):
            cpu_part = None if platform.cpu else book.part("cpu", cpu.name)
            for sockets in range(1, min(platform.sockets, cpu.max_sockets) + 1):
                for count, gb in layouts(platform, sockets):
                    offers: Sequence[tuple[int, PriceRow | None]] = modules.get(gb) or [(0, None)]
                    census.looked_at += len(offers)
                    if need.total > Dimms(count, gb, None).room_bytes:
                        census.too_small += len(offers)
                        continue
                    for mts, offer in offers:
                        parts = _parts(platform, body, cpu_part, sockets, count, gb, mts, offer, book, drive)
                        if any(part.total is None and part.label not in MAY_BE_BLANK for part in parts):
                            census.unpriced += 1
                            missing = census.unpriced_platforms.setdefault(platform.name, set())
                            missing.update(part.label for part in parts if part.total is None)
                            continue
                        dimms = Dimms(count, gb, mts or None)
                        key = (cpu.name, sockets, float(count), mts)
                        if key not in predictions:
                            machine = machine_from_cpu(_with_memory_of(cpu, platform), sockets, dimms, printed=True)
                            predictions[key] = predict(machine, load, context, engine)
                        census.builds.append(_build(platform, cpu, sockets, dimms, parts, predictions[key]))
    return census


def _with_memory_of(cpu: Cpu, platform: Platform) -> Cpu:
    """The CPU as it works on this platform: some take two kinds of memory."""
    if cpu.mem_type == platform.mem_type or platform.dimm_form == "soldered":
        return cpu
    from dataclasses import replace

    second = next(part for part in cpu.mem_second.split(";") if part.startswith(platform.mem_type + "-"))
    return replace(cpu, mem_type=platform.mem_type, mem_speed_mts=int(second.split("-")[-1]), mem_second="")


def _body_parts(platform: Platform, book: PriceBook) -> list[Part]:
    """The platform itself and what a bare board needs besides."""
    parts = [book.part("platform", platform.name)]
    if platform.bare_board:
        parts += [book.other("case"), book.other("psu"), book.other("cooler")]
    return parts


def _parts(
    platform: Platform, body: list[Part], cpu_part: Part | None, sockets: int, count: int, gb: float, mts: int,
    row: PriceRow | None, book: PriceBook, drive: Part | None,
) -> tuple[Part, ...]:  # fmt: skip
    parts = list(body)
    if cpu_part is not None:
        parts.append(Part(cpu_part.label, sockets, cpu_part.price, cpu_part.stale_months))
    if platform.dimm_form != "soldered":
        label = f"{platform.mem_type} {platform.dimm_form} {gb:g} GB" + (f" {mts}" if mts else "")
        parts.append(book.ram_part(label, count, row))
    if drive is not None and not (platform.dimm_form == "soldered" and platform.nvme == "built in"):
        parts.append(drive)
    return tuple(parts)


def _build(platform: Platform, cpu: Cpu, sockets: int, dimms: Dimms, parts: tuple[Part, ...], prediction: Prediction
           ) -> Build:  # fmt: skip
    price = low = high = 0.0
    for part in parts:
        total, row = part.total or 0.0, part.price
        price += total
        ranged = row is not None and row.ranged and row.low and row.high
        scale = part.count * part.factor
        low += row.low * scale if ranged and row and row.low else total
        high += row.high * scale if ranged and row and row.high else total
    return Build(platform, cpu, sockets, dimms, parts, price, low, high, prediction)


def named_platforms(names: Sequence[str], platforms: Sequence[Platform]) -> list[Platform]:
    """The platforms whose name contains one of these; an unknown name is an error."""
    found = [platform for platform in platforms if any(name.lower() in platform.name.lower() for name in names)]
    if names and not found:
        raise SeventyError(f"No platform of the catalogue is called {names[0]!r}.")
    return found or list(platforms)
