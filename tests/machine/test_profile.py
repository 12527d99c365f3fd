import dataclasses
import json
from pathlib import Path

import pytest

from seventy.machine import profile
from seventy.machine.memory import total_bytes
from seventy.machine.profile import Profile
from seventy.machine.topology import cpu_name, physical_cores


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "path", lambda: tmp_path / "cache" / "machine.json")


def here(**changes: object) -> Profile:
    cores = len(physical_cores())
    whole = Profile("2026-01-01", cpu_name(), "avx2", cores, cores, total_bytes(), 30.5, {"avx2": 1500.0})
    return dataclasses.replace(whole, **changes)


def test_saved_is_loaded() -> None:
    assert profile.load() is None
    here().save()
    assert profile.load() == here()


@pytest.mark.parametrize(
    "other", [{"cpu": "another"}, {"cores": 1000}, {"memory_bytes": 2 * total_bytes()}], ids=str
)
def test_of_another_machine(other: dict[str, object]) -> None:
    here(**other).save()
    assert profile.load() is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": 2},
        {"surprise": 1},
        {"read_bandwidth_gbs": -1},
        {"read_bandwidth_gbs": "fast"},
        {"cores": 0},
        {"cpu": None},
        {"int8_gops": {"avx2": None}},
        {"int8_gops": [1]},
    ],
    ids=str,
)
def test_broken_is_refused(change: dict[str, object]) -> None:
    here().save()
    data = json.loads(profile.path().read_text()) | change
    with pytest.raises(ValueError, match=r"\w"):
        profile.read(json.dumps(data))
    profile.path().write_text(json.dumps(data))
    assert profile.load() is None


def test_not_even_json() -> None:
    here().save()
    for text in ("", "[]", "{", '{"version": 1}', "\xff"):
        profile.path().write_text(text)
        assert profile.load() is None


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    here().save()
    assert profile.load() is None
