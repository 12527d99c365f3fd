import dataclasses
from pathlib import Path
from typing import Any

import pytest

from seventy.machine import topology
from seventy.machine.settings import Settings
from seventy.machine.smbios import Slot, Slots
from seventy.machine.topology import Topology
from seventy.measure import checks, profile
from seventy.measure.checks import CHECKS, Finding, ModelFile, Readings
from seventy.measure.profile import Bandwidth
from tests.support import trees

GOOD = Settings(
    governors=("performance",),
    energy_preferences=("performance",),
    boost=True,
    platform_profile="performance",
    on_battery=False,
    transparent_huge_pages="madvise",
    numa_balancing=False,
    swap_bytes=8 << 30,
    swap_used_bytes=1 << 20,
    hypervisor="",
    container="",
)
UNTOLD = Settings((), (), None, None, None, None, None, 0, 0, "", "")


def slots(filled: str, channels: str = "ABCD", mts: int = 2400, nbytes: int = 16 << 30) -> Slots:
    full = [Slot(f"DIMM_{c}1", c, nbytes, "DDR4", 2400, mts, 64) for c in channels]
    empty = [Slot(f"DIMM_{c}1", c, 0, "", 0, 0, 0) for c in channels]
    return Slots(tuple(full[i] if c in filled else empty[i] for i, c in enumerate(channels)))


@pytest.fixture(name="dual")
def _dual(tmp_path: Path) -> Topology:
    return topology.read(trees.write(tmp_path, trees.cpus(trees.DUAL)), range(16))


def readings(machine: Topology, **changes: Any) -> Readings:
    whole = Readings(machine, GOOD, slots("ABCD"), 64 << 30, 60 << 30)
    return dataclasses.replace(whole, **changes)


def titles(found: Readings) -> list[str]:
    return [finding.title for finding in checks.find(found)]


def only(found: Readings) -> Finding:
    (finding,) = checks.find(found)
    return finding


def measured(best: float, typical: float) -> profile.Profile:
    return profile.describe("avx2", [Bandwidth(8, 1, (0, 1), (0, 1), best, typical)])


def test_nothing_wrong(dual: Topology) -> None:
    assert titles(readings(dual)) == []
    assert titles(readings(dual, profile=measured(70, 69))) == []


def test_nothing_told(dual: Topology) -> None:
    found = readings(dual, settings=UNTOLD, slots=Slots(problem="permission"))
    assert titles(found) == []
    assert len(checks.unknown(found)) == 3
    assert "sudo seventy doctor" in checks.unknown(found)[0]
    assert len(checks.unknown(readings(dual, profile=measured(70, 69)))) == 0


@pytest.mark.parametrize(
    ("setting", "title", "command"),
    [
        ({"governors": ("powersave",), "energy_preferences": ()}, "CPU governor", "scaling_governor"),
        ({"governors": ("schedutil",), "energy_preferences": ()}, "CPU governor", "scaling_governor"),
        ({"energy_preferences": ("balance_power",)}, "Energy preference", "energy_performance_preference"),
        ({"boost": False}, "Turbo", "no_turbo"),
        ({"platform_profile": "low-power"}, "Power profile", "platform_profile"),
        ({"on_battery": True}, "Battery", "plug"),
        ({"transparent_huge_pages": "never"}, "Huge pages", "transparent_hugepage/enabled"),
        ({"numa_balancing": True}, "NUMA balancing", "sysctl kernel.numa_balancing=0"),
        ({"swap_used_bytes": 4 << 30}, "Swap", "swapoff"),
        ({"hypervisor": "KVM"}, "Virtual machine", "seventy measure"),
    ],
)
def test_settings(dual: Topology, setting: dict[str, Any], title: str, command: str) -> None:
    finding = only(readings(dual, settings=dataclasses.replace(GOOD, **setting)))
    assert finding.title == title
    assert command in finding.fix


@pytest.mark.parametrize(
    "setting",
    [
        {"governors": ("powersave",), "energy_preferences": ("balance_performance",)},
        {"swap_used_bytes": 100 << 20},
        {"hypervisor": "WSL"},
        {"platform_profile": "balanced"},
    ],
)
def test_settings_that_are_well(dual: Topology, setting: dict[str, Any]) -> None:
    assert titles(readings(dual, settings=dataclasses.replace(GOOD, **setting))) == []


def test_one_dimm_of_four_channels(dual: Topology) -> None:
    finding = only(readings(dual, slots=slots("A")))
    assert finding.seen == "1 of 4 memory channels have a DIMM; empty: B, C, D"
    assert finding.slower == (pytest.approx(3.4), 4)
    assert titles(readings(dual, slots=slots("A"), settings=dataclasses.replace(GOOD, hypervisor="KVM"))) == [
        "Virtual machine"
    ]


def test_second_slots_of_a_channel_may_be_empty(dual: Topology) -> None:
    two = slots("ABCD").slots + tuple(dataclasses.replace(slot, nbytes=0) for slot in slots("ABCD").slots)
    assert titles(readings(dual, slots=Slots(two))) == []


def test_channels_without_names(dual: Topology) -> None:
    def unnamed(filled: str) -> Slots:
        return Slots(tuple(dataclasses.replace(slot, channel="") for slot in slots(filled).slots))

    assert only(readings(dual, slots=unnamed("A"))).slower == (1, 2)
    assert titles(readings(dual, slots=unnamed("AB"))) == []
    assert "its manual" in " ".join(checks.unknown(readings(dual, slots=unnamed("AB"))))


def test_dimms(dual: Topology) -> None:
    assert only(readings(dual, slots=slots("ABCD", mts=1866))).slower == (1, pytest.approx(2400 / 1866))
    uneven = Slots((slots("A", "A", nbytes=32 << 30).slots[0], *slots("BCD", "BCD").slots))
    assert "A 32 GB, B 16 GB" in only(readings(dual, slots=uneven)).seen
    assert only(readings(dual, profile=measured(30, 29))).title == "Memory bandwidth"


def test_neighbours(dual: Topology) -> None:
    machine = dataclasses.replace(GOOD, hypervisor="KVM")
    finding = only(readings(dual, settings=machine, profile=measured(42, 30)))
    assert "varied by 40 %" in finding.seen
    assert finding.slower == (1, pytest.approx(1.4))


def test_fewer_cores(dual: Topology) -> None:
    assert only(readings(dataclasses.replace(dual, quota=2.5))).slower == (1, pytest.approx(3.2))
    assert titles(readings(dataclasses.replace(dual, quota=16.0))) == []
    assert "2 of 8 cores" in only(readings(dataclasses.replace(dual, allowed=(0, 1, 8)))).seen


def test_memory(dual: Topology) -> None:
    assert only(readings(dual, room_bytes=10 << 30)).title == "Memory"
    model = ModelFile("model.gguf", 42 << 30, 44 << 30, 2.0)
    assert titles(readings(dual, model=model)) == []
    assert titles(readings(dual, model=model, room_bytes=44 << 30)) == []
    busy = only(readings(dual, model=model, room_bytes=(44 << 30) - 1))
    assert busy.slower == (1, 2) and "close other programs" in busy.fix
    assert busy.seen == "model.gguf needs 47.2 GB with a context of 4096; 47.2 GB of 68.7 GB are free for it"
    small = only(readings(dual, model=model, room_bytes=30 << 30, memory_bytes=32 << 30))
    assert small.slower == (1, 10) and "add memory" in small.fix


def test_disk(dual: Topology) -> None:
    finding = only(readings(dual, model=ModelFile("model.gguf", 42_000_000_000, 0, 0.1)))
    assert (finding.seen, finding.why) == ("model.gguf is read at 100 MB/s", "loading it takes 7.0 minutes")
    assert titles(readings(dual, model=ModelFile("model.gguf", 42_000_000_000, 0, None))) == []


def test_the_dearest_first(dual: Topology) -> None:
    settings = dataclasses.replace(GOOD, transparent_huge_pages="never", boost=False)
    assert titles(readings(dual, settings=settings, slots=slots("AB"))) == ["Memory channels", "Huge pages", "Turbo"]
    assert len(CHECKS) == len(set(CHECKS))
