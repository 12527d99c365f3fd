"""What processes have promised themselves of memory, counted over all of them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from seventy.errors import SeventyError
from seventy.runtime import reservations
from seventy.runtime.memory import reserve as kept
from seventy.runtime.memory import room

TOTAL, AVAILABLE = 25_000_000_000, 24_000_000_000

_HOLDER = """
import sys, time
from pathlib import Path
from seventy.errors import SeventyError
from seventy.machine import memory
from seventy.runtime import reservations
folder, nbytes, touched, start = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
reservations.folders = lambda: [folder]
memory.total_bytes, memory.available_bytes = lambda: 25_000_000_000, lambda: 24_000_000_000
while not start.exists(): time.sleep(0.001)
held = bytearray(touched)
for i in range(0, touched, 4096): held[i] = 1
try:
    reservation = reservations.reserve(nbytes, "a model")
    print("promised", flush=True)
    sys.stdin.read()
except SeventyError as error:
    print(error, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of its own for each test, on a machine of 25 GB."""
    path = tmp_path / "memory"
    monkeypatch.setattr(reservations, "folders", lambda: [path])
    monkeypatch.setattr("seventy.machine.memory.total_bytes", lambda: TOTAL)
    monkeypatch.setattr("seventy.machine.memory.available_bytes", lambda: AVAILABLE)
    return path


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def process(folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a process that promises itself so many bytes, has touched some, and lives until it is killed."""
    start = tmp_path / "start"
    with contextlib.ExitStack() as stack:

        def run(nbytes: int, touched: int = 0, wait: bool = False) -> subprocess.Popen[str]:
            if not wait:
                start.touch()
            command = [sys.executable, "-c", _HOLDER, *map(str, (folder, nbytes, touched, start))]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(child)
            stack.callback(child.kill)
            return child

        yield run


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def promised() -> int:
    with reservations.ledger() as ledger:
        return ledger.promised


def test_what_fits_is_promised_and_what_does_not_is_refused_with_the_numbers(folder: Path) -> None:
    free = room(TOTAL, AVAILABLE)
    assert free == AVAILABLE - kept(TOTAL) // 4
    reservations.reserve(free, "x.gguf").release()
    with pytest.raises(SeventyError, match=r"^x\.gguf needs 25\.0 GB of memory and 23\.7 GB of 25\.0 GB are free for"):
        reservations.reserve(TOTAL, "x.gguf")


def test_what_this_process_has_promised_counts_until_it_is_released(folder: Path) -> None:
    held = psutil.Process().memory_info().rss
    with reservations.reserve(10 * 10**9, "one"):
        second = reservations.reserve(5 * 10**9, "two")
        # Its resident memory counts once, for both.
        assert promised() == pytest.approx(15 * 10**9 - held, abs=100_000_000)
        with pytest.raises(SeventyError, match="are promised to models already loaded"):
            reservations.reserve(20 * 10**9, "three")
        second.release()
        second.release()
    assert promised() == 0 and not list(folder.iterdir())


def test_who_has_promised_memory_is_known(folder: Path, process: Start) -> None:
    child = process(3 * 10**9)
    assert said(child) == "promised"
    with reservations.reserve(10**9, "one"):
        found = {each.pid: each for each in reservations.holders()}
    assert set(found) == {child.pid, os.getpid()}
    assert found[child.pid].nbytes == 3 * 10**9 and 0 < found[child.pid].resident < 10**9
    assert "memory" in found[child.pid].command and abs(found[child.pid].since - time.time()) < 60


@pytest.mark.parametrize("key", [("--api-key", "SECRET"), ("--api-key=SECRET",)])
def test_keys_are_not_shown(key: tuple[str, ...]) -> None:
    words = ["seventy", "serve", "m.gguf", *key, "--api-keys=keys.txt", "--port", "8070"]
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()", *words]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as child:
        while (holder := reservations._holder(child.pid, 1)) is None or "serve" not in holder.command:
            time.sleep(0.01)
        assert child.stdin is not None
        child.stdin.close()
    shown = " ".join(key).replace("SECRET", "...")
    assert holder.command == f"seventy serve m.gguf {shown} --api-keys=keys.txt --port 8070"


def test_nobody_refers_to_it_any_more(folder: Path) -> None:
    reservations.reserve(10**9, "lost")
    assert promised() == 0 and not list(folder.iterdir())


def test_a_forked_child_does_not_take_it_back(folder: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom seventy.runtime import reservations\n"
        f"reservations.folders = lambda: [Path({str(folder)!r})]\n"
        "held = reservations.reserve(10**6, 'x')\nchild = os.fork()\n"
        "if child == 0: sys.exit()\nos.waitpid(child, 0)\nprint(len(os.listdir(reservations.folders()[0])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1\n" and not list(folder.iterdir())


def test_another_process_counts_without_what_it_holds(process: Start) -> None:
    child = process(10 * 10**9, touched=300_000_000)
    assert said(child) == "promised"
    rss = psutil.Process(child.pid).memory_info().rss
    assert rss > 300_000_000
    assert promised() == pytest.approx(10 * 10**9 - rss, abs=1_000_000)


def test_a_process_that_holds_more_than_it_promised_takes_nothing_from_others(process: Start) -> None:
    child = process(1_000_000, touched=10_000_000)
    assert said(child) == "promised"
    assert promised() == 0


def test_a_killed_process_is_forgotten_and_its_file_removed(process: Start, folder: Path) -> None:
    child = process(20 * 10**9)
    assert said(child) == "promised" and promised() > 19 * 10**9
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(list(folder.iterdir())) == 1
    assert promised() == 0 and not list(folder.iterdir())


def test_of_three_that_start_at_once_as_many_pass_as_fit(process: Start, tmp_path: Path) -> None:
    for _ in range(3):
        (tmp_path / "start").unlink(missing_ok=True)
        children = [process(12 * 10**9, wait=True) for _ in range(3)]
        time.sleep(0.5)
        (tmp_path / "start").touch()
        answers = sorted(map(said, children))
        assert answers.count("promised") == 1, answers
        assert sum("are promised to models already loaded" in answer for answer in answers) == 2
        for child in children:
            child.kill()
            child.wait()


def test_a_number_that_now_belongs_to_another_process_is_not_taken_for_it(
    process: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = process(10 * 10**9, touched=100_000_000)
    assert said(child) == "promised"
    # In a container of its own, say: its resident memory cannot be known, so all of its promise counts.
    monkeypatch.setattr(reservations, "_started", lambda pid: "another time")
    assert promised() == 10 * 10**9


def test_whatever_else_lies_in_the_folder_is_harmless(folder: Path, process: Start) -> None:
    assert promised() == 0
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "1-text").write_text("nobody has this locked")
    import fcntl

    with (folder / "2-text").open("w") as file:
        file.write("locked, but no promise")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert promised() == 0
        reservations.reserve(10**9, "x").release()


def test_the_folder_is_for_all_users(folder: Path) -> None:
    with reservations.reserve(10**9, "x"):
        assert folder.stat().st_mode & 0o7777 == 0o1777
        (file,) = folder.iterdir()
        assert file.stat().st_mode & 0o777 == 0o644


def test_the_next_folder_where_the_first_cannot_be_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    second = tmp_path / "deep" / "second"
    monkeypatch.setattr(reservations, "folders", lambda: [tmp_path / "file", tmp_path / "link", second])
    with reservations.reserve(10 * 10**9, "x"):
        assert len(list(second.iterdir())) == 1 and promised() > 0
    monkeypatch.setattr(reservations, "folders", list)
    with reservations.reserve(10 * 10**9, "x"):
        assert promised() == 0
    with pytest.raises(SeventyError, match="needs 30"):
        reservations.reserve(30 * 10**9, "x")


def test_a_lock_that_somebody_never_gives_back_is_waited_for_and_then_passed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reservations, "_LOCK_SECONDS", 0.1)
    with reservations.ledger(), reservations.ledger() as second:
        assert second.room > 0
    assert "is locked by another process" in caplog.text
