import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from seventy.cli import doctor, measure
from seventy.machine.smbios import Slot, Slots
from seventy.measure import profile
from seventy.measure.checks import Finding
from seventy.measure.profile import Bandwidth, Profile
from seventy.plan.wanted import catalogue_load
from tests.support.tiny import write_tiny


def shown(found: Profile) -> str:
    out = io.StringIO()
    measure.show(found, catalogue_load("llama-3.3-70b", "Q4_K_M"), Console(file=out, width=120))
    return re.sub(r" +", " ", out.getvalue())


def described(rows: list[Bandwidth]) -> Profile:
    whole = profile.describe("avx2", rows, {"generic": 90.0, "avx2": 1412.0}, 170.0, 0.5)
    slots = Slots(tuple(Slot(f"DIMM_{c}1", c, 16 << 30, "DDR4", 2400, 2133, 64) for c in "AB"))
    return dataclasses.replace(whole, slots=slots)


def test_what_the_figures_mean_for_a_70b() -> None:
    text = shown(described([Bandwidth(1, 1, (0,), (0,), 20.95, 20.0), Bandwidth(2, 1, (0,), (0,), 25.0, 24.0)]))
    assert "│ 2 │ 25.0 │ 24.0 │ 0.60 tok/s │" in text
    assert "25.0 GB/s allow 0.60 tok/s to one user; 2 threads are enough." in text
    assert "73 % of what the channels give on paper" in text
    assert "2 of 2 slots filled, 2 of 2 channels: 2 x 16 GB DDR4-2400 at 2133 MT/s" in text
    assert "│ int8, avx2 │ 1412 │ 10.0 tok/s │" in text
    assert "0.50 GB/s in order; 42.5 GB of model load in 85 s at best." in text


def test_two_nodes_and_hyperthreads() -> None:
    rows = [Bandwidth(8, 1, (0, 1), (0, 1), 90, 80), Bandwidth(4, 1, (0,), (1,), 20, 19)]
    text = shown(dataclasses.replace(described([*rows, Bandwidth(16, 2, (0, 1), (0, 1), 89, 80)]), nodes=2))
    assert "│ 8, nodes 0, 1 │" in text
    assert "│ 4, node 0 reading node 1 │" in text
    assert "│ 16 (2 a core), nodes 0, 1 │" in text


def test_what_the_cpu_is_and_what_of_it_is_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seventy.jit.isa.binding.get_host_cpu_name", lambda: "graniterapids")
    monkeypatch.setattr("seventy.jit.isa.host_features", lambda: frozenset({"amx-int8", "avx512fp16", "avx2"}))
    found = described([Bandwidth(2, 1, (0,), (0,), 25.0, 24.0)])
    hidden = dataclasses.replace(found.settings, hypervisor="kvm")
    found = dataclasses.replace(found, settings=hidden, cores=2, last_level_cache_bytes=480 << 20)
    text = shown(found)
    assert "Granite Rapids, by its family" in text and "AVX-512 FP16, AMX int8" in text
    assert "480 MB, which is doubtful" in text
    assert "doubtful" not in shown(dataclasses.replace(found, last_level_cache_bytes=32 << 20))
    assert "doubtful" not in shown(dataclasses.replace(found, settings=dataclasses.replace(hidden, hypervisor="")))


def test_quick_has_memory_only() -> None:
    text = shown(profile.describe("avx2", [Bandwidth(1, 1, (0,), (0,), 20.95, 20.0)]))
    assert "Multiplying" not in text
    assert "Disk" not in text


@pytest.mark.parametrize(
    ("slower", "text"),
    [
        ((1, 1), "slower to load only"),
        ((1, 1.5), "up to 1.5x slower"),
        ((1.2, 1.8), "1.2-1.8x slower"),
        ((2, 2), "2.0x slower"),
    ],
)
def test_cost(slower: tuple[float, float], text: str) -> None:
    assert doctor.cost(Finding("t", "s", "w", "f", slower)) == text


def test_findings_are_printed_whole() -> None:
    out = io.StringIO()
    finding = Finding("Swap", "4 [GB] are in swap", "slow", "sudo swapoff -a", (1, 2))
    doctor.show([finding], ["DIMMs"], Console(file=out))
    text = re.sub(r" +", " ", out.getvalue())
    assert "Swap (up to 2.0x slower)\n 4 [GB] are in swap: slow\n -> sudo swapoff -a\n" in text
    assert "- DIMMs" in text


def test_size_and_need_of_a_split_model(tmp_path: Path) -> None:
    whole = doctor.model_file(write_tiny(tmp_path / "whole.gguf"))
    write_tiny(tmp_path / "[a].gguf", split=10)
    parts = sorted(tmp_path.glob("[[]a]*.gguf"))
    assert len(parts) > 1
    split = doctor.model_file(parts[0])
    assert split.nbytes == sum(part.stat().st_size for part in parts)
    assert split.need_bytes == whole.need_bytes > 200_000_000


def test_doctor_always_ends_well() -> None:
    result = subprocess.run([sys.executable, "-m", "seventy", "doctor"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


def test_json_is_the_kept_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile, "path", lambda: tmp_path / "machine.json")
    monkeypatch.setattr("seventy.measure.rates.buffer_bytes", lambda machine: 32 << 20)
    measure.measure(json_out=True, quick=True)
    assert profile.read(capsys.readouterr().out) == profile.load()
