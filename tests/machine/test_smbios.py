import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seventy.machine import smbios
from seventy.machine.smbios import Slot, Slots
from tests.support import trees

TABLE = "sys/firmware/dmi/tables/DMI"


def structure(type: int, handle: int, body: bytes, *strings: str) -> bytes:
    text = b"".join(s.encode() + b"\0" for s in strings) or b"\0"
    return struct.pack("<BBH", type, 4 + len(body), handle) + body + text + b"\0"


def array(handle: int, use: int = 3) -> bytes:
    return structure(16, handle, bytes([3, use, 3]) + struct.pack("<IHH", 0, 0xFFFE, 8) + bytes(8))


def device(
    name: str, bank: str, size: int, kind: int = 0x1A, speed: int = 2400, configured: int = 2133, parent: int = 0x1000
) -> bytes:
    body = struct.pack("<HHHHHBBBBBHH", parent, 0xFFFE, 72, 64, size, 9, 0, 1, 2, kind, 0, speed)
    body += bytes(5) + struct.pack("<IH", 48 << 10, configured) + bytes(0x54 - 0x22) + struct.pack("<II", 7200, 6800)
    return structure(17, 0x1100, body, name, bank)


def test_slots_of_a_server() -> None:
    table = structure(0, 0, bytes(20), "vendor") + array(0x1000) + array(0x2000, use=5)
    table += device("CPU1_DIMM_A1", "NODE 1", 16 << 10)
    table += device("CPU1_DIMM_A2", "NODE 1", 0)
    table += device("CPU1_DIMM_B1", "NODE 1", 0x7FFF, speed=0xFFFF, configured=0xFFFF)
    table += device("CPU1_DIMM_C1", "NODE 1", 0xFFFF)
    table += device("flash", "", 16, parent=0x2000)
    table += structure(127, 0x7F00, b"")
    slots = Slots(smbios.parse(table))
    assert slots.slots[0] == Slot("CPU1_DIMM_A1", "1/1/A", 16 << 30, "DDR4", 2400, 2133, 64)
    assert slots.slots[1] == Slot("CPU1_DIMM_A2", "1/1/A", 0, "", 0, 0, 0)
    assert slots.slots[2] == Slot("CPU1_DIMM_B1", "1/1/B", 48 << 30, "DDR4", 7200, 6800, 64)
    assert len(slots.slots) == 4
    assert (slots.channels, slots.filled_channels, len(slots.filled)) == (3, 2, 2)
    assert slots.theoretical_gbs == pytest.approx(2 * 2133 * 8 / 1000)


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        ([("ChannelA-DIMM0", "BANK 0"), ("ChannelB-DIMM1", "BANK 3")], ["A", "B"]),
        ([("DIMM 0", "P0 CHANNEL A"), ("DIMM 1", "P0 CHANNEL B")], ["0/A", "0/B"]),
        ([("DIMM_A1", "BANK 0"), ("DIMM_A2", "BANK 1")], ["A", "A"]),
        ([("P1-DIMMA1", "x"), ("P2-DIMMA1", "x")], ["1/A", "2/A"]),
        ([("Controller0-ChannelA-DIMM0", ""), ("Controller1-ChannelA-DIMM0", "")], ["0/A", "1/A"]),
        ([("DIMM_A1", "P0_Node0_Channel0_Dimm0"), ("DIMM_D1", "P0_Node0_Channel3_Dimm0")], ["0/0/0", "0/0/3"]),
        ([("DIMM_A1", ""), ("DIMM_A12", "")], ["", ""]),
        ([("A1", "Not Specified"), ("DIMM_A1", "")], ["", ""]),
        ([("Node0_Dimm0", "Node0_Bank0"), ("Node0_Dimm1", "Node0_Bank0")], ["", ""]),
    ],
)
def test_channels(names: list[tuple[str, str]], channels: list[str]) -> None:
    assert smbios.channel_names(names) == channels


def test_soldered_chips_are_narrow() -> None:
    slots = Slots(tuple(Slot("", f"0/{c}", 2 << 30, "LPDDR5", 6400, 6400, 16) for c in "ABCD"))
    assert slots.theoretical_gbs == pytest.approx(4 * 6400 * 2 / 1000)


def test_unknown_speed() -> None:
    assert Slots((Slot("", "A", 1 << 30, "DDR4", 0, 0, 64),)).theoretical_gbs is None
    assert Slots((Slot("", "", 1 << 30, "DDR4", 2400, 2400, 64),)).theoretical_gbs is None


def test_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert smbios.read(tmp_path) == Slots(problem="absent")
    trees.write(tmp_path, {TABLE: structure(127, 0, b"")})
    assert smbios.read(tmp_path).problem == "absent"
    trees.write(tmp_path, {TABLE: array(0x1000) + device("DIMM_A1", "", 1024)})
    assert smbios.read(tmp_path).slots[0].nbytes == 1 << 30

    def refuse(path: Path) -> bytes:
        raise PermissionError(str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert smbios.read(tmp_path).problem == "permission"


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 300))
def test_broken_tables(noise: bytes, cut: int) -> None:
    whole = array(0x1000) + device("DIMM_A1", "BANK 0", 1024) + device("DIMM_B1", "BANK 1", 1024)
    smbios.parse(whole[:cut])
    smbios.parse(whole[:cut] + noise)
    smbios.parse(noise)
