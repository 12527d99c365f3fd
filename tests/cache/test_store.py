"""The cache on disk: what is read back is what was written for these tokens and this model, whatever happens."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seventy.cache import store as storing
from seventy.cache.fetch import fetch
from seventy.cache.pages import Pages
from seventy.cache.prefix import PrefixCache, Sequence
from seventy.cache.spec import Paged
from seventy.cache.store import DiskCache, PageStore
from seventy.kernels.pages import PAGE
from tests.cache.test_prefix import check, make, write

SIZES = [3000, 500]
PARTS = [np.arange(size, dtype=np.int64).astype(np.uint8) for size in SIZES]


def opened(folder: Path, max_bytes: int = 1_000_000, key: bytes = b"model") -> PageStore:
    return PageStore(DiskCache(folder, max_bytes), key)


def written(store: PageStore, *names: bytes) -> None:
    for name in names:
        store.put(name, PARTS)
        store.drain(10)


def fetched(cache: PrefixCache, sequence: Sequence, tokens: list[int]) -> int:
    """Open a text with what the disk has of it."""
    fetch(cache, tokens)
    return sequence.open(tokens)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_put_is_there_later_for_the_same_model(tmp_path: Path) -> None:
    store = opened(tmp_path / "cache")
    written(store, b"a")
    store.close()
    again, other = opened(tmp_path / "cache"), opened(tmp_path / "cache", key=b"other")
    got = again.get(b"a", SIZES)
    assert got and all((one == part).all() for one, part in zip(got, PARTS, strict=True))
    assert again.get(b"b", SIZES) is None and other.get(b"a", SIZES) is None and not other.has(b"a")
    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (file.parent, file.parent.parent)} == {0o700}
    again.close()
    other.close()


def test_a_damaged_file_is_a_miss(tmp_path: Path) -> None:
    store = opened(tmp_path)
    written(store, b"a")
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    places = (0, 9, 41, len(whole) // 2, len(whole) - 1)
    flipped = [whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :] for at in places]
    for damaged in (*flipped, whole[:-1], whole + b"x", b""):
        file.write_bytes(damaged)
        assert store.get(b"a", SIZES) is None and not file.exists()
    # Another's file under this name.
    written(store, b"b")
    files(tmp_path)[0].rename(file)
    assert store.get(b"a", SIZES) is None
    written(store, b"a")
    assert store.get(b"a", SIZES) and store.get(b"a", [3499, 1]) and store.get(b"a", [3000]) is None
    store.close()


def test_the_longest_unused_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_TRIMMED", 1.0)
    store = opened(tmp_path, 4 * 3600)
    written(store, b"a", b"b", b"c")
    for at, name in enumerate((b"c", b"b")):
        os.utime(store._path(name), (1000 - at, 1000 - at))
    # Files of other processes count, too.
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "x.kv").write_bytes(bytes(3600))
    store._uncounted = storing._COUNT_EVERY
    written(store, b"d")
    assert [store.has(name) for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 4 * 3600
    store.put(b"large", [np.zeros(20_000, np.uint8)])
    store.drain(10)
    assert not store.has(b"large") and store.has(b"d")
    store.close()


def test_a_disk_that_fails_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path / "cache")
    written(store, b"a")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        written(store, b"b")
    assert not store.has(b"b") and len(files(tmp_path)) == 1
    # Nothing is tried for a while.
    written(store, b"c")
    assert not store.has(b"c") and store.get(b"a", SIZES)
    store._paused_until = 0.0
    subprocess.run(["rm", "-r", str(tmp_path / "cache")], check=True)
    assert store.get(b"a", SIZES) is None
    written(store, b"c")
    assert store.has(b"c")
    store.close()
    store.close()
    with pytest.raises(Exception, match="--cache-dir"):
        opened(files(tmp_path)[0])


@pytest.mark.parametrize("window", [None, 40])
def test_evicted_pages_are_found_again(tmp_path: Path, window: int | None) -> None:
    def cache() -> PrefixCache:
        made = make(8, window)
        made.attach(opened(tmp_path, 10_000_000))
        return made

    first = cache()
    sequence = Sequence(first, 400)
    write(first, sequence, list(range(150)))
    sequence.close()
    # Room for this is made of the other's pages.
    sequence.open(list(range(1000, 1200)))
    write(first, sequence, list(range(1000, 1200)))
    sequence.close()
    assert first.store
    first.store.drain(10)
    assert fetched(first, sequence, list(range(150))) >= 3 * PAGE
    check(first, sequence)
    sequence.close()
    first.close(10)
    second = cache()
    for start in (0, 1000):
        later = Sequence(second, 400)
        assert fetched(second, later, [*range(start, start + 120), 7]) == 3 * PAGE
        check(second, later)
        assert fetched(second, later, [start, 9, *range(100)]) <= 1
        later.close()
    assert second.free_pages == 8
    second.close()
    # A page of another model is none of ours.
    other = make(8, window)
    other.attach(opened(tmp_path, 10_000_000, b"other"))
    assert fetched(other, Sequence(other, 400), list(range(150))) == 0
    other.close()


def test_no_more_is_fetched_than_there_is_room_for(tmp_path: Path) -> None:
    first = make(16)
    first.attach(opened(tmp_path, 10_000_000))
    sequence = Sequence(first, 600)
    write(first, sequence, list(range(500)))
    sequence.close()
    first.close(10)
    small = make(8)
    small.attach(opened(tmp_path, 10_000_000))
    running = Sequence(small, 100)
    write(small, running, list(range(2000, 2070)))
    later = Sequence(small, 600)
    assert fetched(small, later, list(range(500))) == 5 * PAGE
    check(small, later)
    check(small, running)
    later.close()
    running.close()
    small.close()


def test_killed_at_any_moment_nothing_wrong_is_read_back() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "kill_cache.py"
    done = subprocess.run([sys.executable, str(script), "--rounds", "20"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ": 0 pages" not in done.stdout


def test_pages_that_lie_in_other_ways_are_others() -> None:
    views = Pages([Paged(1, 32, 32), Paged(2, 32, 32, 64)], 4, "f16").views(1, -1)
    assert len(views) == 1
