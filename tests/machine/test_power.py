from pathlib import Path

import pytest

from seventy.errors import SeventyError
from seventy.machine import power
from seventy.machine.power import Meter
from tests.support import trees

CAP = "sys/class/powercap"
RANGE = 65_532_610_987


def tree(root: Path) -> Path:
    files: dict[str, str | int | bytes] = {}
    for zone, name, energy in [
        ("intel-rapl:0", "package-0", RANGE - 1_000_000),
        ("intel-rapl:0:0", "core", 5),
        ("intel-rapl:0:1", "dram", 10_000_000),
        ("intel-rapl:1", "package-1", 0),
        ("intel-rapl:2", "psys", 0),
        ("intel-rapl-mmio:0", "package-0", 7),
    ]:
        files |= {f"{CAP}/{zone}/name": name, f"{CAP}/{zone}/energy_uj": energy}
        files[f"{CAP}/{zone}/max_energy_range_uj"] = RANGE
    return trees.write(root, files)


def set_energy(root: Path, zone: str, energy: int) -> None:
    trees.write(root, {f"{CAP}/{zone}/energy_uj": energy})


def test_counts_packages_and_dram_over_a_wrap(tmp_path: Path) -> None:
    tree(tmp_path)
    with Meter(tmp_path) as meter:
        set_energy(tmp_path, "intel-rapl:0", 2_000_000 - 1)
        set_energy(tmp_path, "intel-rapl:0:1", 14_000_000)
        set_energy(tmp_path, "intel-rapl:1", 500_000)
        meter.sample()
        set_energy(tmp_path, "intel-rapl:1", 1_500_000)
    assert meter.package_joules == pytest.approx(3 + 1.5)
    assert meter.dram_joules == pytest.approx(4)
    assert meter.joules == pytest.approx(8.5)


def test_looks_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path)
    monkeypatch.setattr(power, "_SAMPLE_SECONDS", 0.001)
    with Meter(tmp_path) as meter:
        set_energy(tmp_path, "intel-rapl:1", 1_000_000)
        while meter.joules < 1:
            pass
    assert meter.joules == pytest.approx(1)


def test_no_counters(tmp_path: Path) -> None:
    with pytest.raises(SeventyError, match="--watts"):
        Meter(tmp_path)


def test_root_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path)
    read_text = Path.read_text

    def refuse(path: Path, *arguments: str) -> str:
        if path.name == "energy_uj":
            raise PermissionError(str(path))
        return read_text(path, *arguments)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(SeventyError, match="chmod a\\+r"):
        Meter(tmp_path)
