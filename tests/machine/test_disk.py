import os
from pathlib import Path

import pytest

from seventy.errors import SeventyError
from seventy.machine import disk


def test_reads_a_scratch_file_and_leaves_nothing(tmp_path: Path) -> None:
    with disk.scratch_file(tmp_path / "new", 40 << 20) as path:
        assert path.stat().st_size == 32 << 20
        assert disk.read_rate(path) > 0
    assert list((tmp_path / "new").iterdir()) == []


def test_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk.scratch_file(tmp_path, 1):
        raise FileNotFoundError
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_and_systems_with_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    path.write_bytes(os.urandom((17 << 20) + 321))
    assert disk.read_rate(path) > 0
    for name in ("O_DIRECT", "posix_fadvise", "preadv"):
        monkeypatch.delattr(os, name, raising=False)
        assert disk.read_rate(path) > 0


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SeventyError, match="nowhere"):
        disk.read_rate(tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    with pytest.raises(SeventyError, match="empty"):
        disk.read_rate(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(SeventyError, match="cannot write"), disk.scratch_file(tmp_path / "file", 1):
        pass
