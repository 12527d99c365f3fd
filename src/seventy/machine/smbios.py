"""The memory slots of the board, from the SMBIOS table that firmware leaves in memory.

Structures 16 (memory array) and 17 (memory device) of DMTF DSP0134, https://www.dmtf.org/standards/smbios.
The table is readable by root only, and by nobody in most virtual machines.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seventy.machine.cgroup import ROOT

_TABLE = "sys/firmware/dmi/tables/DMI"
_ARRAY, _DEVICE = 16, 17
_SYSTEM_MEMORY = 3
_KINDS = {
    0x12: "DDR", 0x13: "DDR2", 0x14: "DDR2", 0x18: "DDR3", 0x1A: "DDR4", 0x1B: "LPDDR", 0x1C: "LPDDR2", 0x1D: "LPDDR3",
    0x1E: "LPDDR4", 0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5", 0x24: "HBM3",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot for a DIMM; `nbytes` is 0 where it is empty, `channel` is '' where the board's names do not tell it.

    `rated_mts` is what the DIMM can do and `mts` what it runs at, in million transfers a second, `width_bits` its
    data lines; 0 where unknown.
    """

    name: str
    channel: str
    nbytes: int
    kind: str
    rated_mts: int
    mts: int
    width_bits: int


@dataclass(frozen=True, slots=True)
class Slots:
    """The board's slots, or in `problem` ('permission' or 'absent') why they are not known."""

    slots: tuple[Slot, ...] = ()
    problem: str = ""

    @property
    def filled(self) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.nbytes)

    @property
    def channels(self) -> int:
        """Channels of the board, 0 where unknown."""
        return len({slot.channel for slot in self.slots if slot.channel})

    @property
    def filled_channels(self) -> int:
        return len({slot.channel for slot in self.filled if slot.channel})

    @property
    def theoretical_gbs(self) -> float | None:
        """Channels with a DIMM x MT/s x bytes a transfer, or None where that is not known."""
        speeds = [slot.mts or slot.rated_mts for slot in self.filled]
        if not self.filled_channels or not all(speeds):
            return None
        # A DDR5 DIMM is two channels of half the width, and firmware gives one or the other; a soldered chip has less.
        soldered = all(slot.kind.startswith("LPDDR") and slot.width_bits for slot in self.filled)
        width = min(slot.width_bits for slot in self.filled) if soldered else 64
        return self.filled_channels * min(speeds) * 1e6 * width / 8 / 1e9


def _structures(table: bytes) -> Iterator[tuple[int, int, bytes, list[str]]]:
    """Type, handle, formatted bytes and strings of each structure, up to the first that is broken."""
    place = 0
    while place + 4 <= len(table):
        type, length, handle = struct.unpack_from("<BBH", table, place)
        if length < 4 or place + length > len(table):
            return
        end = table.find(b"\0\0", place + length)
        if end < 0:
            return
        strings = table[place + length : end].decode("latin-1").split("\0")
        yield type, handle, table[place : place + length], strings
        place = end + 2


def _string(data: bytes, offset: int, strings: list[str]) -> str:
    index = data[offset] if offset < len(data) else 0
    return strings[index - 1].strip() if 0 < index <= len(strings) else ""


def _word(data: bytes, offset: int, extended: int) -> int:
    """A 16-bit field whose largest value says that a 32-bit one follows; 0 where unknown."""
    if offset + 2 > len(data):
        return 0
    (value,) = struct.unpack_from("<H", data, offset)
    if value == 0xFFFF:
        return struct.unpack_from("<I", data, extended)[0] if extended + 4 <= len(data) else 0
    return int(value)


def _nbytes(data: bytes) -> int:
    (size,) = struct.unpack_from("<H", data, 0x0C)
    if size == 0x7FFF and len(data) >= 0x20:
        return int(struct.unpack_from("<I", data, 0x1C)[0] & 0x7FFFFFFF) << 20
    if size == 0xFFFF:
        return 0
    return (size & 0x7FFF) << (10 if size & 0x8000 else 20)


def parse(table: bytes) -> tuple[Slot, ...]:
    """Read the memory slots of an SMBIOS table, in its order."""
    structures = list(_structures(table))
    arrays = {
        handle for type, handle, data, _ in structures if type == _ARRAY and data[5:6] == bytes([_SYSTEM_MEMORY])
    }
    found = []
    for type, _, data, strings in structures:
        if type != _DEVICE or len(data) < 0x15 or struct.unpack_from("<H", data, 4)[0] not in arrays:
            continue
        name, bank = _string(data, 0x10, strings), _string(data, 0x11, strings)
        rated, speed = _word(data, 0x15, 0x54), _word(data, 0x20, 0x58)
        width = _word(data, 0x0A, len(data))
        found.append((name, bank, _nbytes(data), _KINDS.get(data[0x12], ""), rated, speed, width))
    channels = channel_names([(name, bank) for name, bank, *_ in found])
    return tuple(
        Slot(name, channel, nbytes, kind, rated, speed, width) if nbytes else Slot(name, channel, 0, "", 0, 0, 0)
        for (name, _, nbytes, kind, rated, speed, width), channel in zip(found, channels, strict=True)
    )


_SOCKET = re.compile(r"(?<![A-Z])(?:CPU|PROC|SOCKET|NODE|P)[ _-]?(\d+)", re.IGNORECASE)
_CONTROLLER = re.compile(r"(?<![A-Z])(?:CONTROLLER|MC)[ _-]?(\d+)", re.IGNORECASE)
_CHANNEL = re.compile(r"CH(?:ANNEL|AN)?[ _-]?([A-Z]|\d+)(?![A-Z])", re.IGNORECASE)
_LETTER = re.compile(r"DIMM[ _-]?([A-P])[ _-]?(\d+)", re.IGNORECASE)


def channel_names(names: list[tuple[str, str]]) -> list[str]:
    """Name the channel of each slot (locator, bank), or return '' for all if the board's names do not tell it.

    Boards write ChannelA-DIMM0, P0 CHANNEL A, P0_Node0_Channel0_Dimm0, CPU1_DIMM_A1: socket, channel, slot.
    """
    channels, numbers = [], set()
    for name, bank in names:
        text = f"{bank} {name}"
        channel, letter = _CHANNEL.search(text), _LETTER.search(name)
        if not channel and letter:
            numbers.add(int(letter[2]))
        match = channel or letter
        if not match:
            return [""] * len(names)
        channels.append("/".join([*_SOCKET.findall(text), *_CONTROLLER.findall(text), match[1].upper()]))
    # Where a letter has more slots than a channel can, it is a socket (DIMM_A1 ... DIMM_A12).
    return [""] * len(names) if numbers and max(numbers) > 3 else channels


def read(root: Path = ROOT) -> Slots:
    """Read the memory slots of this machine, or the reason why they cannot be read."""
    try:
        slots = parse((root / _TABLE).read_bytes())
    except PermissionError:
        return Slots(problem="permission")
    except OSError:
        return Slots(problem="absent")
    return Slots(slots, "" if slots else "absent")
