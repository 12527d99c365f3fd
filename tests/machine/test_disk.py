import mmap
import os
import threading
import time
from pathlib import Path

import pytest

from seventy.errors import SeventyError
from seventy.machine import disk


def check_rate(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read once from end to end, and in no less time than reading took and no more than passed."""
    size, read_at, reads = path.stat().st_size, disk._read_at, []

    def watched(descriptor: int, block: mmap.mmap, offset: int, lock: threading.Lock) -> int:
        start = time.perf_counter()
        got = read_at(descriptor, block, offset, lock)
        reads.append((offset, got, start, time.perf_counter()))
        return got

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_read_at", watched)
        start = time.perf_counter()
        rate = disk.read_rate(path, seconds=600)
        around = time.perf_counter() - start
    offsets, got, starts, ends = zip(*sorted(reads), strict=True)
    assert list(offsets) == list(range(0, size, 8 << 20)) and sum(got) == size
    assert size / around <= rate * 1e9 <= size / (max(ends) - min(starts))


def test_reads_a_scratch_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk.scratch_file(tmp_path / "new", 40 << 20, seconds=600) as path:
        assert path.stat().st_size == 32 << 20
        check_rate(path, monkeypatch)
    assert list((tmp_path / "new").iterdir()) == []


def test_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk.scratch_file(tmp_path, 1):
        raise FileNotFoundError
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_and_systems_with_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    path.write_bytes(os.urandom((17 << 20) + 321))
    check_rate(path, monkeypatch)
    for name in ("O_DIRECT", "posix_fadvise", "preadv"):
        monkeypatch.delattr(os, name, raising=False)
        check_rate(path, monkeypatch)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SeventyError, match="nowhere"):
        disk.read_rate(tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    with pytest.raises(SeventyError, match="empty"):
        disk.read_rate(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(SeventyError, match="cannot write"), disk.scratch_file(tmp_path / "file", 1):
        pass
