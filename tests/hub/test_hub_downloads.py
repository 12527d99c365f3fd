"""Files of a hub, through the real clients, from a stand-in on loopback: both hubs, and all that goes wrong."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seventy.errors import SeventyError
from seventy.hub import store, transfer
from seventy.hub.huggingface import HuggingFace
from seventy.hub.listing import Hub as AnyHub
from seventy.hub.listing import NotThere, Unreachable, Variant, variants
from seventy.hub.modelscope import ModelScope
from tests.support import gguf_writer as writer
from tests.support.hub import DEAD, Hub, sha256

REPOSITORY = "me/Model-GGUF"
FILE = "q4/Model-Q4_K_M.gguf"
MODEL = writer.build({"general.architecture": "llama"}, {"t": ((1 << 18,), 24, bytes(i % 251 for i in range(1 << 18)))})
KINDS: list[type[HuggingFace] | type[ModelScope]] = [HuggingFace, ModelScope]


@pytest.fixture(params=KINDS, ids=["hf", "ms"])
def client(request: pytest.FixtureRequest, hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AnyHub:
    """A client of each hub, and a repository with one model on it; files are cut into segments of 64 KB."""
    hub.add(REPOSITORY).files[FILE] = MODEL
    monkeypatch.setattr(transfer, "SEGMENT_BYTES", 1 << 16)
    made: AnyHub = request.param()
    return made


def no_progress(done: int, total: int | None) -> None:
    pass


def variant(client: AnyHub) -> Variant:
    return variants(client.files(REPOSITORY))[0]


def pull(client: AnyHub, said: list[str] | None = None) -> Path:
    return store.pull_files(variant(client).files, no_progress, (said if said is not None else []).append)


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_a_file_comes_whole_and_is_not_asked_for_again(client: AnyHub, hub: Hub, folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = store.pull_files(variant(client).files, lambda done, total: seen.append((done, total)))
    assert path == folder / REPOSITORY / FILE and path.read_bytes() == MODEL
    assert seen[-1] == (len(MODEL), len(MODEL)) and left_over(folder) == [path.name]
    asked = len(hub.contents())
    assert asked == 5
    assert pull(client) == path and len(hub.contents()) == asked


def test_listing_tells_sizes_and_sums(client: AnyHub, hub: Hub) -> None:
    hub.repositories[REPOSITORY].files["Model-Q8_0.gguf"] = MODEL * 2
    hub.repositories[REPOSITORY].files["mmproj-f16.gguf"] = MODEL
    found = variants(client.files(REPOSITORY))
    assert [(each.quant, each.nbytes) for each in found] == [("Q4_K_M", len(MODEL)), ("Q8_0", 2 * len(MODEL))]
    assert found[0].files[0].sha256 == sha256(MODEL)


def test_a_broken_connection_goes_on_where_it_was(client: AnyHub, hub: Hub) -> None:
    hub.faults = ["drop", "drop", "503", "drop"]
    assert pull(client).read_bytes() == MODEL
    sent = [seen.range for seen in hub.contents()]
    # Each segment once, and what was cut of three of them, and one that got no answer.
    assert len(sent) == 9 and len(set(sent)) == 8


def test_goes_on_in_another_process_and_at_the_other_hub(client: AnyHub, hub: Hub, folder: Path) -> None:
    hub.faults = ["", "drop", *["500"] * 40]
    with pytest.raises(SeventyError, match=r"broke off at 0\.\d MB of 0\.3 MB .*500.* pull again to go on"):
        store.pull_files(variant(client).files, no_progress)
    hub.faults, before = [], len(hub.contents())
    done = transfer.done_bytes(folder / ".partial" / f"{sha256(MODEL)}.part")
    # How much came before it broke off is a matter of timing; what follows is not.
    assert 0 < done < len(MODEL)
    other = ModelScope() if client.kind == "hf" else HuggingFace()
    assert pull(other).read_bytes() == MODEL
    fetched = 0
    for seen in hub.contents()[before:]:
        first, _, last = (seen.range or "").removeprefix("bytes=").partition("-")
        fetched += int(last) + 1 - int(first)
    assert fetched == len(MODEL) - done


def test_wrong_bytes_of_the_right_size_are_never_kept(client: AnyHub, hub: Hub, folder: Path) -> None:
    hub.lies[FILE] = MODEL[:-100_000] + bytes(100_000)
    with pytest.raises(SeventyError, match=r"wrong bytes .* nothing was kept"):
        pull(client)
    assert left_over(folder) == []
    hub.lies.clear()
    assert pull(client).read_bytes() == MODEL


def test_a_part_with_wrong_bytes_is_fetched_once_more(client: AnyHub, hub: Hub, folder: Path) -> None:
    hub.faults = ["", *["500"] * 40]
    with pytest.raises(SeventyError, match="broke off"):
        pull(client)
    part = folder / ".partial" / f"{sha256(MODEL)}.part"
    part.write_bytes(bytes(len(MODEL)))
    hub.faults, said = [], list[str]()
    assert pull(client, said).read_bytes() == MODEL
    assert any("from the start" in line for line in said)


def test_a_journal_that_makes_no_sense_is_begun_anew(client: AnyHub, hub: Hub, folder: Path) -> None:
    part = folder / ".partial" / f"{sha256(MODEL)}.part"
    part.parent.mkdir(parents=True)
    for junk in (b"", b"x" * 7, b"\xff" * 48, b"\0" * 4096):
        part.write_bytes(bytes(len(MODEL)))
        part.with_name(f"{part.name}.journal").write_bytes(junk)
        path = pull(client)
        assert path.read_bytes() == MODEL
        path.unlink()


def test_too_many_requests_wait_as_long_as_asked(client: AnyHub, hub: Hub) -> None:
    hub.faults, hub.retry_after, said = ["429"], "1", list[str]()
    began = time.monotonic()
    assert pull(client, said).read_bytes() == MODEL
    assert time.monotonic() - began >= 1 and said == [f"{client.title} asks to wait 1 s"]
    (store.folder() / REPOSITORY / FILE).unlink()
    hub.faults, hub.retry_after = ["429"] * 4, "3600"
    with pytest.raises(SeventyError, match=r"broke off .*429"):
        pull(client)


def test_too_many_requests_for_a_list(client: AnyHub, hub: Hub) -> None:
    hub.listing_faults = ["429"]
    with pytest.raises(SeventyError, match="429"):
        client.files(REPOSITORY)


def test_a_server_without_ranges(client: AnyHub, hub: Hub) -> None:
    hub.ranges = False
    assert pull(client).read_bytes() == MODEL
    # Once for each of the first segments asked for at once, and once for the whole.
    assert len(hub.contents()) <= transfer.CONNECTIONS + 1


def test_what_is_not_there(client: AnyHub, hub: Hub, folder: Path) -> None:
    with pytest.raises(NotThere, match="no repository me/none"):
        client.files("me/none")
    there = variant(client)
    del hub.repositories[REPOSITORY].files[FILE]
    with pytest.raises(SeventyError):
        store.pull_files(there.files, no_progress)


def test_nobody_answers(client: AnyHub, folder: Path) -> None:
    dead = type(client)(DEAD)  # type: ignore[call-arg]
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"cannot be reached .*HF_ENDPOINT=https://hf-mirror.com"):
        dead.files(REPOSITORY)
    assert time.monotonic() - began < 30


def test_no_room_is_said_before_anything_is_fetched(
    client: AnyHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = variant(client)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100_000}))
    with pytest.raises(SeventyError, match=r"0.1 MB free, the download needs 0.3 MB; .* SEVENTY_MODELS"):
        store.pull_files(there.files, no_progress)
    assert hub.contents() == []


def test_a_split_model(client: AnyHub, hub: Hub, folder: Path) -> None:
    files = {}
    for number in (0, 1):
        metadata: dict[str, object] = {"general.architecture": "llama", "split.no": number, "split.count": 2}
        name = f"Q8_0/Model-Q8_0-{number + 1:05}-of-00002.gguf"
        files[name] = writer.build(metadata, {f"t{number}": ((1 << 15,), 24, bytes(1 << 15))})
    hub.repositories[REPOSITORY].files = files
    seen: list[tuple[int, int | None]] = []
    path = store.pull_files(variant(client).files, lambda done, total: seen.append((done, total)))
    assert path == folder / REPOSITORY / "Q8_0/Model-Q8_0-00001-of-00002.gguf" and len(left_over(folder)) == 2
    total = sum(map(len, files.values()))
    assert seen[-1] == (total, total) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_its_sums_promise_but_is_no_model(client: AnyHub, hub: Hub) -> None:
    hub.repositories[REPOSITORY].files[FILE] = b"<html>" * 1000
    with pytest.raises(SeventyError, match=r"promised, but it cannot be read: .* web page"):
        pull(client)


def test_several_ranges_at_once(client: AnyHub, hub: Hub) -> None:
    file = variant(client).files[0]
    hub.bytes_per_second = 200_000
    at_once = []
    for connections in (1, 4):
        part = store.folder() / f"{connections}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        hub.most_at_once = 0
        transfer.fetch(file, part, no_progress, lambda text: None, connections)
        assert part.read_bytes() == MODEL
        at_once.append(hub.most_at_once)
    # The server notices the end of an answer after the client does.
    assert at_once[0] <= 2 and at_once[1] >= 4


PULL = """
import sys
from seventy.hub import store, transfer
from seventy.hub.huggingface import HuggingFace
from seventy.hub.listing import variants
transfer.SEGMENT_BYTES, transfer._JOURNAL_EVERY_BYTES = 1 << 16, 1 << 12
files = variants(HuggingFace().files(sys.argv[1]))[0].files
print(store.pull_files(files, lambda done, total: print(done, flush=True), lambda text: print(text, flush=True)))
"""


@contextmanager
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PULL, REPOSITORY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as running:
        yield running
        if running.poll() is None:
            running.kill()


def test_killed_in_the_middle_and_gone_on(hub: Hub, folder: Path) -> None:
    hub.add(REPOSITORY).files[FILE] = MODEL
    hub.bytes_per_second = 60_000
    part = folder / ".partial" / f"{sha256(MODEL)}.part"
    for share in (0.3, 0.6):
        with process() as running:
            while transfer.done_bytes(part) < share * len(MODEL):
                assert running.poll() is None
                time.sleep(0.01)
            running.send_signal(signal.SIGKILL)
        assert not list((folder / "me").glob("**/*.gguf"))
    done, before = transfer.done_bytes(part), len(hub.contents())
    hub.bytes_per_second = 0
    with process() as running:
        assert running.stdout is not None
        said = running.stdout.read().splitlines()
    assert Path(said[-1]).read_bytes() == MODEL and left_over(folder) == [Path(FILE).name]
    ranges = [(seen.range or "").removeprefix("bytes=").partition("-") for seen in hub.contents()[before:]]
    assert sum(int(last) + 1 - int(first) for first, _, last in ranges) == len(MODEL) - done


def test_ctrl_c_ends_at_once_and_keeps_what_has_come(hub: Hub, folder: Path) -> None:
    hub.add(REPOSITORY).files[FILE] = MODEL
    hub.bytes_per_second = 20_000
    part = folder / ".partial" / f"{sha256(MODEL)}.part"
    with process() as running:
        while transfer.done_bytes(part) < 20_000:
            assert running.poll() is None
            time.sleep(0.01)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.wait(20) != 0 and time.monotonic() - began < 5
    assert transfer.done_bytes(part) >= 20_000


def test_two_processes_share_one_download(hub: Hub, folder: Path) -> None:
    hub.add(REPOSITORY).files[FILE] = MODEL
    hub.bytes_per_second = 200_000
    with process() as one, process() as two:
        assert one.stdout and two.stdout
        said = [one.stdout.read(), two.stdout.read()]
    assert [text.splitlines()[-1] for text in said] == [str(folder / REPOSITORY / FILE)] * 2
    assert sum("another process is fetching" in text for text in said) == 1
    assert len(hub.contents()) == 5


def test_consent_is_asked_for_where_it_is_wanted(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPOSITORY).files[FILE] = MODEL
    hub.repositories[REPOSITORY].gated = True
    with pytest.raises(SeventyError, match=r"asks for consent first: log in at .*/me/Model-GGUF.*HF_TOKEN"):
        pull(HuggingFace())
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert pull(HuggingFace()).read_bytes() == MODEL
    # The token goes to the hub and to nobody it sends us to.
    assert {seen.headers.get("authorization") for seen in hub.contents()} == {None}
    assert "Bearer hf_secret" in {seen.headers.get("authorization") for seen in hub.requests}


def test_the_token_that_a_login_left_in_hf_home(hub: Hub, folder: Path, tmp_path: Path) -> None:
    hub.add(REPOSITORY).files[FILE] = MODEL
    hub.repositories[REPOSITORY].gated = True
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text("hf_left\n")
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", PULL, REPOSITORY]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "Bearer hf_left" in {seen.headers.get("authorization") for seen in hub.requests}


@pytest.mark.parametrize("host", [DEAD, None], ids=["dead Xet host", "no Xet"])
def test_xet_is_never_asked(hub: Hub, folder: Path, host: str | None) -> None:
    hub.add(REPOSITORY).files[FILE] = MODEL
    hub.xet = host
    began = time.monotonic()
    assert pull(HuggingFace()).read_bytes() == MODEL
    assert time.monotonic() - began < 30 and not [seen for seen in hub.requests if "xet" in seen.path]


def test_offline(hub: Hub, folder: Path) -> None:
    code = f"from seventy.hub.huggingface import HuggingFace; HuggingFace().files({REPOSITORY!r})"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "HF_HUB_OFFLINE is set" in result.stderr and not hub.requests
