"""Enumerates complete machines: every platform, CPU, number of sockets and DIMM layout that fit together.

Only those that hold the model and have a price for every part become a `Build`; the others are counted, and the
platforms that lack nothing but a price are named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from seventy.catalog.book import LATER_MONTHS, PriceBook
from seventy.catalog.bundles import all_bundles
from seventy.catalog.cpus import Cpu, all_cpus
from seventy.catalog.platforms import Platform
from seventy.catalog.prices import Part, PriceRow, months
from seventy.language import t
from seventy.plan.machine import machine_from_cpu
from seventy.plan.memory import MODULE_GB, Dimms
from seventy.plan.physics import with_memory
from seventy.plan.roofline import Load, Prediction, predict

# Parts that stand in a bill without a price: small, and boxed CPUs bring their own.
MAY_BE_BLANK = ("cooler",)
# Room on the drive beside the model: the system and a second model.
DRIVE_SPARE_GB = 100


@dataclass(frozen=True, slots=True)
class Build:
    """A machine to buy: its parts with their prices, its memory layout and its predicted speed."""

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
    def safe_price(self) -> float:
        """The price to expect at worst: where the price of a platform or CPU is inferred, the top of its range."""
        return sum(
            part.bounds[1] if part.price is not None and part.price.inferred and part.price.category != "ram"
            else part.total or 0.0 for part in self.parts
        )  # fmt: skip

    @property
    def uncertain(self) -> list[Part]:
        """Parts whose price is a range, was carried from an older month or inferred from a neighbour's."""
        return [part for part in self.parts if part.price is not None and not part.certain]

    @property
    def oldest_months(self) -> int:
        """How many months older than the price book its most out-of-date price is; 0 if all are current."""
        return max(part.stale_months for part in self.parts)

    @property
    def name(self) -> str:
        count = f"{self.sockets}x " if self.sockets > 1 else ""
        return f"{self.platform.name} · {count}{short_cpu(self.cpu)} · {self.dimms}"


@dataclass(slots=True)
class Census:
    """The machines that were considered, and how many were left out for which reason."""

    looked_at: int = 0
    too_small: int = 0
    unpriced: int = 0
    builds: list[Build] = field(default_factory=list)
    unpriced_platforms: dict[str, set[str]] = field(default_factory=dict)


def short_cpu(cpu: Cpu) -> str:
    """Return the CPU's name without its maker: "Xeon E5-2680 v4"."""
    return cpu.name.split(" ", 1)[1] if cpu.vendor in ("Intel", "AMD") else cpu.name


def cpus_for(platform: Platform, cpus: Sequence[Cpu]) -> list[Cpu]:
    """Return the CPUs a platform takes, or the one it comes with."""
    return [cpu for cpu in cpus if platform.takes(cpu)]


def layouts(platform: Platform, sockets: int) -> Iterator[tuple[int, float]]:
    """Yield sensible ways to fill the slots, as (modules, GB each): equal modules, the same number per socket."""
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
    own_drive: bool = False, users: int = 1,
) -> Census:  # fmt: skip
    """Build every machine that the catalogue allows for this model and number of simultaneous users."""
    census = Census()
    need = load.need(context, users)
    drive = None if own_drive else book.ssd(load.file_gb + DRIVE_SPARE_GB)
    predictions: dict[tuple[str, int, float, int], Prediction] = {}
    for platform in platforms:
        body = _body_parts(platform, book)
        modules: dict[float, list[tuple[int, PriceRow]]] = {}
        if platform.dimm_form != "soldered":
            for gb, mts, row in book.modules(platform.mem_type, platform.dimm_form):
                modules.setdefault(gb, []).append((mts, row))
        for cpu, cpu_part in _priced_cpus(platform, cpus, book):
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
                            here = with_memory(cpu, platform.mem_type)
                            machine = machine_from_cpu(here, sockets, dimms, printed=True)
                            predictions[key] = predict(machine, load, context, engine, users=users)
                        census.builds.append(_build(platform, cpu, sockets, dimms, parts, predictions[key]))
    census.builds += _bundles(load, context, engine, book, platforms, users, own_drive)
    return census


# Where no CPU of a platform has a price of its own, so many of those with an inferred one are looked at.
_INFERRED_CPUS = 4


def _priced_cpus(platform: Platform, cpus: Sequence[Cpu], book: PriceBook) -> Sequence[tuple[Cpu, Part | None]]:
    """The CPUs to look at: those that a source has a price for; else those priced abroad; else all others.

    Of CPUs whose price is inferred, a few of middling size: what is true of a price is least true of the largest.
    """
    # Registered modules are what is priced for a board that takes them.
    fitting = [cpu for cpu in cpus_for(platform, cpus) if platform.dimm_form != "RDIMM" or cpu.registered]
    if platform.cpu:
        return [(cpu, None) for cpu in fitting]
    parts = [(cpu, book.part("cpu", cpu.name)) for cpu in fitting]
    sourced = [(cpu, part) for cpu, part in parts if part.price is not None and not part.price.inferred]
    if sourced:
        return sourced
    abroad = [pair for pair in parts if book.abroad("cpu", pair[0].name)]
    by_size = sorted(abroad or parts, key=lambda pair: pair[0].cores * pair[0].all_core_ghz)
    first = max(0, (len(by_size) - _INFERRED_CPUS) // 2)
    return by_size[first : first + _INFERRED_CPUS]


def _bundles(
    load: Load, context: int, engine: str, book: PriceBook, platforms: Sequence[Platform], users: int,
    own_drive: bool = False,
) -> list[Build]:  # fmt: skip
    """Machines sold whole, in this region, that hold the model; a drive is added where theirs is too small."""
    bodies, cpus = {body.name: body for body in platforms}, {cpu.name: cpu for cpu in all_cpus()}
    need, found = load.need(context, users), []
    for bundle in all_bundles():
        platform, dimms = bodies.get(bundle.platform), Dimms(bundle.modules, bundle.module_gb, bundle.speed_mts)
        here = bundle.region == book.region and months(bundle.date) <= months(book.month) + LATER_MONTHS
        if platform is None or not here or need.total > dimms.room_bytes:
            continue
        cpu = with_memory(cpus[bundle.cpu], platform.mem_type)
        drive = f"{bundle.ssd_gb:g}"
        label = t("{name}, complete: {dimms}, {drive} GB SSD", name=bundle.platform, dimms=dimms, drive=drive)
        parts = [book.line(label, 1, bundle.row)]
        if not own_drive and bundle.ssd_gb < load.file_gb + DRIVE_SPARE_GB:
            parts.append(book.ssd(load.file_gb + DRIVE_SPARE_GB))
        machine = machine_from_cpu(cpu, bundle.sockets, dimms, printed=True)
        prediction = predict(machine, load, context, engine, users=users)
        found.append(_build(platform, cpu, bundle.sockets, dimms, tuple(parts), prediction))
    return found


def _body_parts(platform: Platform, book: PriceBook) -> list[Part]:
    """The platform itself and what a bare board needs besides."""
    parts = [book.part("platform", platform.name)]
    if platform.bare_board:
        case = book.other("case")
        parts += [case] if "PSU" in case.label else [case, book.other("psu")]
        parts.append(book.other("cooler"))
    return parts


def _parts(
    platform: Platform, body: list[Part], cpu_part: Part | None, sockets: int, count: int, gb: float, mts: int,
    row: PriceRow | None, book: PriceBook, drive: Part | None,
) -> tuple[Part, ...]:  # fmt: skip
    parts = list(body)
    if cpu_part is not None:
        parts.append(replace(cpu_part, count=sockets))
    if platform.dimm_form != "soldered":
        form = "LRDIMM" if row is not None and row.dimm_form == "LRDIMM" else platform.dimm_form
        label = f"{platform.mem_type} {form} {gb:g} GB" + (f" {mts}" if mts else "")
        parts.append(book.line(label, count, row))
    if drive is not None and not (platform.dimm_form == "soldered" and platform.nvme == "built in"):
        parts.append(drive)
    return tuple(parts)


def _build(platform: Platform, cpu: Cpu, sockets: int, dimms: Dimms, parts: tuple[Part, ...], prediction: Prediction
           ) -> Build:  # fmt: skip
    price = sum(part.total or 0.0 for part in parts)
    bounds = [part.bounds for part in parts]
    low, high = sum(least for least, _ in bounds), sum(most for _, most in bounds)
    return Build(platform, cpu, sockets, dimms, parts, price, low, high, prediction)
