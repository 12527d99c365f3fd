"""`seventy pull NAME --from ADDRESS`: a model of another machine, here of another server on loopback."""

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from seventy.errors import SeventyError
from seventy.hub import store, sums, transfer
from seventy.hub.local import Local, of_path
from seventy.hub.peer import Peer, PeerModel, _endpoint
from seventy.server.guard import Rules
from seventy.server.library import served
from seventy.server.pool import ModelPool
from tests.cli.test_pull import Result, seventy
from tests.server.conftest import Loads, running
from tests.server.test_library import ANNA, BO, OWNED, hub
from tests.support import gguf_writer as writer
from tests.support import stores
from tests.support.hub import answering, sha256
from tests.support.tiny import write_tiny

__all__ = ["hub", "seventy"]

Machine = Callable[[str], Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stores of other programs that are empty; the folder of models is chosen by `machine`."""
    # The home stays: kernels are compiled in it once for all tests.
    for name in ("HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS", "LLAMA_CACHE", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(transfer, "PAUSES_SECONDS", (0.0, 0.0))
    return tmp_path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    def use(name: str) -> Path:
        """From now on this process is on that machine."""
        monkeypatch.setenv("SEVENTY_MODELS", str(tmp_path / name))
        return tmp_path / name

    return use


def serve(*paths: Path, rules: Rules | None = None) -> Any:
    return running(ModelPool([served(of_path(path)) for path in paths], Loads(512)), rules)


Run = Callable[..., Result]


@contextlib.contextmanager
def machine_serving(name: str, folder: Path, *options: str) -> Iterator[str]:
    """The address of a `seventy serve` whose folder of models this is."""
    command = [sys.executable, "-m", "seventy", "serve", name, "--port", "0", "--context", "256", *options]
    environment = os.environ | {"SEVENTY_MODELS": str(folder)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        said = next(line for line in process.stderr if "http://" in line)
        yield said.rpartition(" ")[2].strip()
        process.terminate()


def test_a_model_goes_to_the_other_machine_and_back(
    home: Path, machine: Machine, seventy: Run, tmp_path: Path
) -> None:
    path = write_tiny(_made(machine("one") / "me/Own-GGUF/q8/Own-Q8_0.gguf"), format_name="Q8_0")
    data, copy = path.read_bytes(), tmp_path / "two/me/Own-GGUF/q8/Own-Q8_0.gguf"
    (tmp_path / "keys").write_text("anna secret-a owner\nbo secret-b\n")
    with machine_serving("hf:me/Own-GGUF", tmp_path / "one", "--api-keys", str(tmp_path / "keys")) as address:
        machine("two")
        result = seventy("pull", "Own-Q8_0", "--from", address, "--api-key", "secret-b")
        assert result.code == 1 and "by an owner's key" in result.err
        for name in ("Own-Q8_0", "hf:me/own-gguf:Q8_0", "hf.co/me/Own-GGUF", "Own-Q8_0.gguf"):
            result = seventy("pull", name, "--from", address, "--api-key", "secret-a")
            assert (result.code, result.out) == (0, f"{copy}\n"), result.err
            assert copy.read_bytes() == data
        assert "is here already" in result.err
        missing = seventy("pull", "other", "--from", address, "--api-key", "secret-a")
        assert missing.code == 1 and "serves no model other; it serves: Own-Q8_0 (" in missing.err
    path.unlink()
    with machine_serving("Own-Q8_0", tmp_path / "two") as address:
        machine("one")
        assert seventy("pull", "Own-Q8_0", "--from", address).code == 0 and path.read_bytes() == data


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    return path


def test_only_owners_get_files_and_only_of_what_is_served(home: Path, machine: Machine, tiny: Path) -> None:
    machine("one")
    with serve(tiny, rules=OWNED) as server:
        for path in ("/files", "/files/sum?model=tiny", f"/files/content?model=tiny&sha256={'0' * 64}"):
            assert server.client.get(path).status_code == 401
            assert server.client.get(path, headers=BO).status_code == 403
        get = server.client.get
        for name in ("../tiny.gguf", str(tiny), "other", "hf:o/r", ""):
            assert get("/files/sum", params={"model": name, "number": 7}, headers=ANNA).status_code == 404
        assert get("/files/sum?model=tiny&number=-1", headers=ANNA).status_code == 404
        listed = get("/files", headers=ANNA).json()["models"]
        assert [(model["name"], model["files"]) for model in listed] == [
            ("tiny", [{"path": tiny.name, "size": tiny.stat().st_size}])
        ]
        assert str(tiny.parent) not in json.dumps(listed)
        server.pool.add(served(of_path(tiny.with_name("gone.gguf"))))
        assert get("/files", headers=ANNA).json()["models"] == listed
        with pytest.raises(SeventyError, match=r"wants an API key.*here: --api-key KEY"):
            Peer(server.url).models()
        with pytest.raises(SeventyError, match="by an owner's key"):
            Peer(server.url, "secret-b").models()


def test_ranges_sums_and_a_file_that_changed(home: Path, machine: Machine, tmp_path: Path) -> None:
    machine("one")
    path = write_tiny(tmp_path / "x.gguf")
    data = path.read_bytes()
    with serve(path) as server:
        lines = [json.loads(line) for line in server.client.get("/files/sum?model=x").text.splitlines()]
        assert lines[-1] == {"sha256": sha256(data)} and sums.known(path) == sha256(data)
        url = f"/files/content?model=x&sha256={sha256(data)}"
        assert server.client.get(url).content == data
        part = server.client.get(url, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
        assert server.client.get(url, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
        path.write_bytes(data + b"1")
        assert server.client.get(url).status_code == 409


def test_a_sum_is_computed_once_for_all_who_wait(
    home: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("one")
    began, go_on, ended = list[Path](), threading.Event(), threading.Event()

    def slow(path: Path, progress: Callable[[int, int | None], None]) -> str:
        began.append(path)
        try:
            while not go_on.wait(0.01):
                progress(1, 2)
        finally:
            ended.set()
        return "0" * 64

    monkeypatch.setattr(sums, "of_file", slow)
    with serve(write_tiny(tmp_path / "x.gguf")) as server, ThreadPoolExecutor(8) as threads:
        gone = httpx.Client(base_url=server.url)
        with gone.stream("GET", "/files/sum?model=x") as response:
            next(response.iter_lines())
        assert ended.wait(30)
        # Nobody waited for it; now eight do, and one that goes stops nothing.
        asked = [threads.submit(server.client.get, "/files/sum?model=x") for _ in range(8)]
        with gone.stream("GET", "/files/sum?model=x") as response:
            next(response.iter_lines())
        gone.close()
        time.sleep(0.3)
        go_on.set()
        assert {one.result().text.splitlines()[-1] for one in asked} == {json.dumps({"sha256": "0" * 64})}
        assert len(began) == 2


def test_it_goes_on_where_it_was_and_takes_no_wrong_bytes(
    home: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("one")
    tensors = {"t": ((1 << 18,), 24, bytes(i % 251 for i in range(1 << 18)))}
    path = _made(tmp_path / "one/x-Q8_0.gguf")
    path.write_bytes(writer.build({"general.architecture": "llama"}, tensors))
    data = path.read_bytes()
    monkeypatch.setattr(transfer, "SEGMENT_BYTES", 1 << 16)
    with serve(path) as server:
        there, peer, asked = machine("two"), Peer(server.url), list[tuple[int, int]]()
        files = peer.offered("x-Q8_0", print).variants[0].files
        plain = peer.open

        def failing(file: Any, start: int, end: int) -> Any:
            asked.append((start, end))
            if len(asked) > 2:
                while not transfer.done_bytes(there / ".partial" / f"{sha256(data)}.part"):
                    time.sleep(0.01)
                raise SeventyError("the network is gone")
            return plain(file, start, end)

        monkeypatch.setattr(peer, "open", failing)
        with pytest.raises(SeventyError, match="network is gone"):
            store.pull_files(files, lambda done, total: None)
        done = transfer.done_bytes(there / ".partial" / f"{sha256(data)}.part")
        assert 0 < done < len(data)
        asked.clear()
        monkeypatch.setattr(peer, "open", lambda file, *span: asked.append(span) or plain(file, *span))
        assert store.pull_files(files, lambda done, total: None).read_bytes() == data
        assert sum(end - start for start, end in asked) == len(data) - done
        # Wrong bytes of the right size, by a machine that says otherwise.
        store.remove([there / path.name])
        sums.remember(path, "5" * 64)
        with pytest.raises(SeventyError, match=r"wrong bytes .* nothing was kept"):
            store.pull_files(peer.offered("x-Q8_0", print).variants[0].files, lambda done, total: None)
        assert not list(there.rglob("*.gguf"))


def test_another_model_of_the_name_is_not_written_over(home: Path, machine: Machine, seventy: Run) -> None:
    path = write_tiny(_made(machine("one") / "x.gguf"))
    with serve(path) as server:
        other = _made(machine("two") / "x.gguf")
        other.write_bytes(b"my own")
        result = seventy("pull", "x", "--from", server.url)
        assert result.code == 1 and "is another model of that name" in result.err and other.read_bytes() == b"my own"


def test_a_split_model_and_a_blob_of_ollama(home: Path, machine: Machine, tiny: Path) -> None:
    paths = []
    for number in (0, 1):
        metadata: dict[str, object] = {"general.architecture": "llama", "split.no": number, "split.count": 2}
        path = machine("one") / f"Big-Q8_0-{number + 1:05}-of-00002.gguf"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(writer.build(metadata, {f"t{number}": ((1 << 15,), 24, bytes(1 << 15))}))
        paths.append(path)
    blob = stores.ollama(home / "OLLAMA_MODELS", "mine/thing:latest", tiny.read_bytes(), "Q4_K_M")
    with serve(paths[0], blob) as server:
        there, peer = machine("two"), Peer(server.url.removeprefix("http://"))
        for name, files in (
            ("Big-Q8_0", [path.name for path in paths]), ("mine/thing", ["mine-thing-latest.gguf"])
        ):  # fmt: skip
            found = peer.offered(name, print).variants[0].files
            assert store.pull_files(found, lambda done, total: None) == there / files[0]
            assert [path.name for path in sorted(there.glob(f"{files[0][:4]}*"))] == files


@pytest.mark.parametrize(
    "text, address",
    [
        ("box", "http://box:8070"), ("box:8071", "http://box:8071"), ("192.168.1.5", "http://192.168.1.5:8070"),
        ("http://box.local:80/", "http://box.local:80"), ("https://box", "https://box:443"),
        ("fe80::1", "http://[fe80::1]:8070"), ("[::1]:9", "http://[::1]:9"),
    ],
)  # fmt: skip
def test_addresses(text: str, address: str) -> None:
    assert _endpoint(text) == address


@pytest.mark.parametrize("text", ["", "http://", "ftp://box", "box:x", "box/models", "http://box:99999"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SeventyError, match="is no address"):
        _endpoint(text)


def test_nobody_is_there() -> None:
    with pytest.raises(SeventyError, match=r"cannot be reached .* seventy serve --models all --host"):
        Peer("127.0.0.1:9").models()


class Strange(http.server.BaseHTTPRequestHandler):
    """A server that is no seventy, or breaks off."""

    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer) + (200 if self.answer.endswith(b"\n") else 0)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "said"), [(b"x", "not as a seventy"), (b"[1]", "not as a seventy"), (b'{"done": 0}\n', "broke off")]
)
def test_what_is_no_sum_is_one_sentence(answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Strange, "answer", answer)
    with answering(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strange)) as server:
        peer = Peer(f"127.0.0.1:{server.server_address[1]}")
        with pytest.raises(SeventyError, match=said):
            peer.files_of(PeerModel("a", ("a",), "", None, (("a.gguf", 9),)), print)
        with pytest.raises(SeventyError, match="not as a seventy"):
            peer.models()


def test_models_whose_files_are_called_the_same_are_two(home: Path, machine: Machine, seventy: Run) -> None:
    models = []
    for name, kind in (("alpha", "Q8_0"), ("beta", "Q4_0")):
        # As Jan keeps them.
        path = write_tiny(_made(home / f"jan/{name}/model.gguf"), format_name=kind)
        models.append(Local(path, "Jan", (name,)))
    machine("two")
    with running(ModelPool([served(model) for model in models], Loads(512)), OWNED) as server:
        for model in models:
            result = seventy("pull", model.labels[0], "--from", server.url, "--api-key", "secret-a")
            assert result.code == 0, result.err
            assert Path(result.out.strip()).read_bytes() == model.path.read_bytes()


def test_something_else_is_there(hub: Any) -> None:
    with pytest.raises(SeventyError):
        Peer(hub.url).models()
