"""What a CPU goes into: servers, workstations, boards and mini PCs, with slots, power, noise and size."""

from dataclasses import dataclass
from functools import cache

from seventy.catalog.cpus import Cpu
from seventy.catalog.rows import load
from seventy.language import t

KINDS = ("rack_1u", "rack_2u", "tower_workstation", "board", "mini_pc", "sff")
# From least to most; blank in a row is unknown.
NOISE = ("silent", "quiet", "office", "loud")
DIMM_FORMS = ("RDIMM", "UDIMM", "SODIMM", "soldered")


@dataclass(frozen=True, slots=True)
class Platform:
    """A chassis or board. Watts are at the wall, volume in litres; `cpu` is the CPU it comes with, if it does.

    `microarchs` are the CPUs it takes, separated by semicolons; slots count the whole platform, channels one socket.
    """

    name: str
    kind: str
    sockets: int
    socket: str
    cpu_gens: str
    microarchs: str
    cpu: str
    mem_type: str
    dimm_form: str
    dimm_slots: int
    channels_per_socket: float
    max_mem_gb: int
    idle_w: float | None
    idle_w_low: float | None
    idle_w_high: float | None
    load_w: float | None
    noise_dba_idle: float | None
    noise_class: str
    volume_l: float | None
    pcie_slots: str
    nvme: str
    sata: str
    psu_w: float | None
    source: str
    date: str
    power_source: str
    unsure: str
    notes: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(t(
                "{name}: kind {kind!r} is none of {kinds}",
                name=self.name, kind=self.kind, kinds=", ".join(KINDS),
            ))
        if self.noise_class and self.noise_class not in NOISE:
            raise ValueError(t(
                "{name}: noise_class {noise_class!r} is none of {noise}",
                name=self.name, noise_class=self.noise_class, noise=", ".join(NOISE),
            ))
        if self.dimm_form not in DIMM_FORMS:
            raise ValueError(t(
                "{name}: dimm_form {dimm_form!r} is none of {dimm_forms}",
                name=self.name, dimm_form=self.dimm_form, dimm_forms=", ".join(DIMM_FORMS),
            ))
        if (self.dimm_slots == 0) != (self.dimm_form == "soldered"):
            raise ValueError(t(
                "{name}: {dimm_slots} DIMM slots with {dimm_form} memory",
                name=self.name, dimm_slots=self.dimm_slots, dimm_form=self.dimm_form,
            ))
        if not self.cpu and not self.microarchs:
            raise ValueError(t("{name}: says neither which CPU it has nor which it takes", name=self.name))
        if not self.source or not self.date:
            raise ValueError(t("{name}: a row needs source and date", name=self.name))

    @property
    def rack(self) -> bool:
        return self.kind.startswith("rack")

    def takes(self, cpu: Cpu) -> bool:
        """Return whether this CPU goes into it; not whether its modules go with the CPU."""
        if self.cpu:
            return cpu.name == self.cpu
        return (
            cpu.socket == self.socket and cpu.microarch in self.microarchs.split(";")
            and (self.sockets == 1 or cpu.max_sockets > 1)
            and (self.mem_type == cpu.mem_type or self.mem_type in cpu.mem_second)
        )  # fmt: skip

    @property
    def bare_board(self) -> bool:
        """Whether case, power supply and cooler come on top."""
        return self.kind == "board" and self.psu_w is None


@cache
def all_platforms() -> tuple[Platform, ...]:
    return load("platforms.csv", Platform)
