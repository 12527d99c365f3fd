"""DIMMs in slots: which channels they fill and how many GB/s those carry."""

import math
import re
from dataclasses import dataclass

from seventy.errors import SeventyError
from seventy.language import t
from seventy.runtime import memory

# Sizes in GB that modules of a kind are made in.
MODULE_GB = {
    ("DDR3", "RDIMM"): (4, 8, 16, 32), ("DDR3", "UDIMM"): (2, 4, 8), ("DDR3", "SODIMM"): (2, 4, 8),
    ("DDR4", "RDIMM"): (8, 16, 32, 64, 128, 256), ("DDR4", "UDIMM"): (4, 8, 16, 32), ("DDR4", "SODIMM"): (4, 8, 16, 32),
    ("DDR5", "RDIMM"): (16, 24, 32, 48, 64, 96, 128, 256), ("DDR5", "UDIMM"): (8, 16, 24, 32, 48, 64),
    ("DDR5", "SODIMM"): (8, 16, 24, 32, 48, 64),
}  # fmt: skip
LARGEST_GB = max(gb for sizes in MODULE_GB.values() for gb in sizes)
# More than this no machine has, in all its modules.
MOST_GB = 8192
# The slowest and the fastest modules of a kind that are sold, MT/s.
SOLD_MTS = {"DDR3": (800, 2400), "DDR4": (1600, 4800), "DDR5": (3200, 9600)}


@dataclass(frozen=True, slots=True)
class Dimms:
    """`count` equal modules of `gb` each, rated `mts` (None: at whatever the CPU is rated for).

    `gb` is what is printed on a module; one of "64 GB" holds 2^36 bytes, 68.7e9. `kind` and `form` ("DDR4", "LRDIMM")
    are blank where nobody said them. `whole` marks a total whose modules nobody named: count is 1, gb the total.
    """

    count: int
    gb: float
    mts: int | None
    kind: str = ""
    form: str = ""
    whole: bool = False

    def __post_init__(self) -> None:
        if self.whole and not 0.5 <= self.gb <= MOST_GB:
            raise ValueError(t("{gb:g} GB of memory cannot be right: machines have up to {most} GB",
                               gb=self.gb, most=MOST_GB))  # fmt: skip
        if not self.whole and not (1 <= self.count <= 64 and 0.5 <= self.gb <= 1024):
            raise ValueError(t("{count} modules of {gb:g} GB cannot be right", count=self.count, gb=self.gb))
        if self.mts is not None and not 800 <= self.mts <= 12800:
            raise ValueError(t("{mts} MT/s is no memory speed", mts=self.mts))

    @property
    def total_gb(self) -> float:
        return self.count * self.gb

    @property
    def nbytes(self) -> int:
        """Their capacity in bytes."""
        return round(self.total_gb * 2**30)

    @property
    def room_bytes(self) -> int:
        """The bytes that models may take, on a machine that does nothing else."""
        return memory.room(memory.visible(self.nbytes))

    def __str__(self) -> str:
        return f"{self.count}x{self.gb:.4g}" + (f"@{self.mts}" if self.mts else "")


def parse_dimms(text: str) -> Dimms:
    """Read "4x16@2400": modules, GB each, MT/s. "4x16" leaves the speed open, "64" or "1.5TB" the modules, too."""
    match = re.fullmatch(
        r"\s*(?:(\d+)\s*[x×*]\s*)?(\d+(?:\.\d+)?)\s*(?:GB?|(TB?))?\s*(?:@\s*(\d+))?\s*", text, re.IGNORECASE
    )
    if match:
        count, size, tb, mts = match.groups()
        gb = float(size) * (1024 if tb else 1)
        try:
            return Dimms(int(count or 1), gb, int(mts) if mts else None, whole=count is None)
        except ValueError as error:
            raise SeventyError(
                "--memory {text!r}: {error}; write modules x GB @ MT/s, as in 4x16@2400.",
                text=text, error=error,
            ) from None
    raise SeventyError("--memory {text!r} is not understood; write modules x GB @ MT/s, as in 4x16@2400.", text=text)


def channels_filled(dimms: int, sockets: int, channels_per_socket: float) -> float:
    """Count the channels with at least one module, if the modules are spread evenly over sockets and channels."""
    filled = 0.0
    for socket in range(sockets):
        here = dimms // sockets + (1 if socket < dimms % sockets else 0)
        filled += min(here, channels_per_socket)
    return filled


def modules_per_channel(dimms: int, sockets: int, channels_per_socket: float) -> int:
    """Return the most modules that any channel holds."""
    return math.ceil(math.ceil(dimms / sockets) / max(1.0, channels_per_socket))


def peak_gbs(channels: float, mts: float) -> float:
    """Return the GB/s of 64-bit channels: 8 bytes per transfer."""
    return channels * mts * 8 / 1000
