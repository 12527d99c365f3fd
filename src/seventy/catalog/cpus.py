"""The CPUs: what the memory controller and the vector units of each can do."""

import difflib
import re
from dataclasses import dataclass
from functools import cache

from seventy.catalog.rows import load
from seventy.language import t


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU model.

    `big_cores` are the performance cores (all of them on a CPU with one kind); `mem_channels` count 64 bits each, also
    for DDR5 and LPDDR; `mem_second` is another memory it takes ("DDR4-3200"); `read_limit_gbs` is a limit below its
    channels' peak (few chiplets, half-wide links). `unsure` names fields that have no source.
    """

    name: str
    vendor: str
    microarch: str
    year: int
    cores: int
    big_cores: int
    threads: int
    base_ghz: float | None
    all_core_ghz: float
    socket: str
    max_sockets: int
    isa: str
    mem_type: str
    mem_channels: float
    mem_speed_mts: int
    mem_second: str
    max_mem_gb: int | None
    tdp_w: int | None
    l3_mb: float | None
    read_limit_gbs: float | None
    passmark: int | None
    passmark_source: str
    source: str
    date: str
    unsure: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.big_cores <= self.cores <= self.threads:
            raise ValueError(t(
                "{name}: cores {big_cores}/{cores}, threads {threads} do not agree",
                name=self.name, big_cores=self.big_cores, cores=self.cores, threads=self.threads,
            ))
        if not 0.5 <= self.mem_channels <= 16 or not 800 <= self.mem_speed_mts <= 12800:
            raise ValueError(t(
                "{name}: {mem_channels} channels at {mem_speed_mts} MT/s cannot be right",
                name=self.name, mem_channels=self.mem_channels, mem_speed_mts=self.mem_speed_mts,
            ))
        if self.isa not in ISAS:
            raise ValueError(t(
                "{name}: isa {isa!r} is none of {isas}",
                name=self.name, isa=self.isa, isas=", ".join(ISAS),
            ))
        if not self.source or not self.date:
            raise ValueError(t("{name}: a row needs source and date", name=self.name))

    @property
    def soldered(self) -> bool:
        """Whether its memory comes with it (Apple, LPDDR parts, small boards)."""
        return self.mem_type.startswith("LPDDR")

    @property
    def server_memory(self) -> bool:
        """Whether it sits in a server's or a workstation's socket."""
        return self.socket in SERVER_SOCKETS

    @property
    def registered(self) -> bool:
        """Whether it takes registered DIMMs; Core i7 and i9 in servers' sockets and Threadrippers to 3990X do not."""
        return self.server_memory and self.socket not in ("TR4", "sTRX4") and " Core " not in self.name


ISAS = ("sse", "avx", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "neon", "dotprod", "i8mm")
SERVER_SOCKETS = (
    "FCLGA1366", "FCLGA2011", "FCLGA2011-3", "FCLGA3647", "FCLGA4189", "FCLGA4677", "FCLGA4710", "FCLGA7529",
    "SP3", "SP5", "SP6", "FCLGA2066", "TR4", "sTRX4", "sWRX8", "sTR5", "LGA4926", "AmpereOne", "cloud",
)  # fmt: skip


@cache
def all_cpus() -> tuple[Cpu, ...]:
    return load("cpus.csv", Cpu)


def _words(name: str) -> str:
    """A CPU name without what sellers and /proc/cpuinfo add: (R), "CPU @ 2.40GHz", "64-Core Processor"."""
    text = name.lower().replace("(r)", " ").replace("(tm)", " ").split("@")[0]
    text = re.sub(r"\b(\d+-core|processor|cpu|with radeon.*|w/ radeon.*|\d+th gen|gen)\b", " ", text)
    text = re.sub(r"\b(v) ?([2-6])\b", r"v\2", text)
    return re.sub(r"[^a-z0-9+]+", " ", text).strip()


# Words that do not tell one CPU from another: "Xeon E5-2680 v4" and "E5-2680 v4" are one.
_MAKERS = {
    "intel", "amd", "xeon", "core", "ryzen", "epyc", "gold", "silver", "platinum", "threadripper", "apple", "pro",
}  # fmt: skip


def _key(name: str) -> str:
    return "".join(word for word in _words(name).split() if word not in {"intel", "amd", "xeon", "apple"})


def _core_key(name: str) -> str:
    return "".join(word for word in _words(name).split() if word not in _MAKERS)


def find_cpu(name: str, cpus: tuple[Cpu, ...]) -> tuple[Cpu | None, list[str]]:
    """Return the CPU of this name, or None and up to four names close to it."""
    wanted, short = _key(name), _core_key(name)
    if not wanted:
        return None, []
    if found := _named(name, cpus):
        return found, []
    by_key = {_key(cpu.name): cpu.name for cpu in cpus}
    within = [cpu_name for key, cpu_name in by_key.items() if short and short in key]
    close = difflib.get_close_matches(wanted, list(by_key), n=4, cutoff=0.72)
    names = list(dict.fromkeys(within[:4] + [by_key[key] for key in close]))
    return None, names[:4]


def _named(name: str, cpus: tuple[Cpu, ...]) -> Cpu | None:
    """The CPU that these words name: as they stand, without the maker, or by an ending that only one has."""
    # "M4 Pro (12-core)" and "M4 Pro" are two.
    as_written = [cpu for cpu in cpus if cpu.name.lower() == name.strip().lower()]
    exact = as_written or [cpu for cpu in cpus if _key(cpu.name) == _key(name)]
    if exact:
        return exact[0]
    short = _core_key(name)
    if not any(c.isdigit() for c in short):
        return None
    same = [cpu for cpu in cpus if _core_key(cpu.name) == short]
    if len(same) == 1:
        return same[0]
    ending = [cpu for cpu in cpus if len(short) >= 4 and _key(cpu.name).endswith(short)]
    return ending[0] if len(ending) == 1 else None
