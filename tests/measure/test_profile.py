import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from seventy.jit.compiler import Library
from seventy.jit.isa import supported
from seventy.machine import cpu_time
from seventy.machine.memory import total_bytes
from seventy.machine.smbios import Slot, Slots
from seventy.measure import profile, rates
from seventy.measure.profile import Bandwidth, Profile


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "path", lambda: tmp_path / "cache" / "machine.json")


def here(**changes: object) -> Profile:
    rows = [Bandwidth(1, 1, (0,), (0,), 20.5, 19.0), Bandwidth(2, 1, (0,), (0,), 30.5, 29.0)]
    whole = profile.describe("avx2", [*rows, Bandwidth(4, 2, (0,), (0,), 31.0, 29.0)], {"avx2": 1500.0}, 170.0, 0.8)
    slots = Slots((Slot("DIMM_A1", "A", 1 << 30, "DDR4", 2400, 2133, 64),))
    return dataclasses.replace(whole, slots=slots, **changes)


def test_the_fewest_threads_that_reach_the_limit() -> None:
    assert (here().read_bandwidth_gbs, here().threads) == (31.0, 2)


def test_saved_is_loaded() -> None:
    assert profile.load() is None
    here().save()
    assert profile.load() == here()


def test_a_limit_that_was_beaten_is_raised() -> None:
    here().save()
    raised = here(read_bandwidth_gbs=55.12)
    assert profile.raise_limit(here(), 55.123) and profile.load() == raised
    # Another machine's, or what another process has measured meanwhile, stays.
    assert not profile.raise_limit(here(), 99.0) and profile.load() == raised


@pytest.mark.parametrize("other", [{"cpu": "another"}, {"cores": 1000}, {"memory_bytes": 2 * total_bytes()}], ids=str)
def test_of_another_machine(other: dict[str, object]) -> None:
    here(**other).save()
    assert profile.load() is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": 2},
        {"version": None},
        {"surprise": 1},
        {"read_bandwidth_gbs": -1},
        {"read_bandwidth_gbs": "fast"},
        {"read_bandwidth_gbs": True},
        {"read_bandwidth_gbs": float("nan")},
        {"cores": 0},
        {"cores": 2.0},
        {"cpu": None},
        {"int8_gops": {"avx2": None}},
        {"int8_gops": {"avx2": 0}},
        {"int8_gops": [1]},
        {"float_gflops": "many"},
        {"bandwidth": [{}]},
        {"bandwidth": 7},
        {"slots": None},
        {"slots": {"slots": [{"name": "A1"}], "problem": ""}},
        {"settings": []},
    ],
    ids=str,
)
def test_broken_is_refused(change: dict[str, object]) -> None:
    data = json.loads(here().text()) | change
    here().save()
    profile.path().write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"\w"):
        profile.read(profile.path().read_text())
    assert profile.load() is None


def test_not_even_a_table() -> None:
    here().save()
    for text in ("", "[]", "{", '{"version": 1}', "\xff", "null"):
        profile.path().write_text(text)
        assert profile.load() is None


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    here().save()
    assert profile.load() is None


def test_quick_says_that_others_used_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "read_local", lambda library, threads: rates.Samples(((1.0,),)))
    seconds = itertools.count(step=5)
    monkeypatch.setattr(cpu_time, "cpu_seconds", lambda cpus: float(next(seconds)))
    assert profile.quick(Library(supported()[-1]), 1).disturbed
    kept = profile.load()
    assert kept and kept.disturbed
    # What was seen meanwhile stays the limit on a machine that is never quiet.
    assert profile.raise_limit(kept, 7.0)
    assert profile.quick(Library(supported()[-1]), 1).read_bandwidth_gbs == 7.0
    monkeypatch.setattr(cpu_time, "cpu_seconds", lambda cpus: 0.0)
    assert not profile.quick(Library(supported()[-1]), 1).disturbed


def test_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "buffer_bytes", lambda machine: 32 << 20)
    read_samples = rates.read_samples
    monkeypatch.setattr(rates, "read_samples", lambda library, areas, seconds: read_samples(library, areas, 0))
    monkeypatch.setattr(cpu_time, "cpu_seconds", lambda cpus: 0.0)
    library = Library(supported()[-1])
    measured = profile.quick(library, 1)
    assert profile.load() == measured
    assert (measured.whole, measured.threads, measured.isa) == (False, 1, library.isa.name)
    here(cores=1000).save()
    profile.quick(library, 1)
    assert profile.read(profile.path().read_text()).whole
    here(cpu="another").save()
    profile.quick(library, 1)
    assert profile.load() is not None
