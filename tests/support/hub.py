"""A stand-in for the Hugging Face hub and ModelScope on loopback: what their clients ask of them, and what goes wrong.

Contents of files come from another host name than the API, behind a redirect, as the hubs do it.
"""

import contextlib
import functools
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

S = TypeVar("S", bound=http.server.HTTPServer)
# Nobody listens there.
DEAD = "http://127.0.0.1:9"


@functools.cache
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Seen:
    """One request: method, path with query, headers."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False


class Hub(http.server.ThreadingHTTPServer):
    """Both hubs at one address. `faults` is what goes wrong, in order, at answers with contents.

    A fault is `drop` (half of the answer, then nothing) or a status; a list of files may also `stall`. `lies` are wrong
    bytes by path, `bytes_per_second` is a connection's limit, `most_at_once` counts answers with contents.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.faults: list[str] = []
        self.listing_faults: list[str] = []
        self.lies: dict[str, bytes] = {}
        self.ranges = True
        self.xet: str | None = None
        self.bytes_per_second = 0.0
        self.retry_after: str | None = "0"
        self.requests: list[Seen] = []
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.contents_url = f"http://localhost:{self.server_port}"

    def add(self, repository: str, **files: bytes) -> Repository:
        return self.repositories.setdefault(repository, Repository(dict(files)))

    def contents(self) -> list[Seen]:
        """The requests for contents of files, in order."""
        return [seen for seen in self.requests if seen.path.startswith("/contents/")]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            self.server.requests.append(Seen(self.command, self.path, headers))
        url = urlsplit(self.path)
        parts, query = unquote(url.path).strip("/").split("/"), parse_qs(url.query)
        if parts[:2] == ["api", "models"] and len(parts) == 4:
            self._hf_model("/".join(parts[2:4]), "blobs" in query)
        elif parts[:3] == ["api", "v1", "models"]:
            self._modelscope("/".join(parts[3:5]), "/".join(parts[5:]), query)
        elif parts[0] == "contents":
            self._contents("/".join(parts[1:3]), "/".join(parts[3:]))
        elif parts[2:4] == ["resolve", "main"]:
            self._hf_resolve("/".join(parts[:2]), "/".join(parts[4:]))
        elif url.path.endswith(".gguf"):
            self._contents("files", parts[-1])
        else:
            self._send(404, b"no such page")

    def _hf_model(self, name: str, with_sizes: bool) -> None:
        if self._fault(self.server.listing_faults):
            return
        repository = self.server.repositories.get(name)
        if repository is None:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return
        siblings: list[dict[str, object]] = [{"rfilename": "README.md"}]
        for path, data in repository.files.items():
            lfs = {"sha256": sha256(data), "size": len(data), "pointerSize": 133}
            siblings.append({"rfilename": path} | ({"size": len(data), "lfs": lfs} if with_sizes else {}))
        answer = {"id": name, "modelId": name, "private": False, "gated": repository.gated, "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _hf_resolve(self, name: str, path: str) -> None:
        repository = self.server.repositories.get(name)
        if repository is None or path not in repository.files:
            code = "RepoNotFound" if repository is None else "EntryNotFound"
            self._send(404, b"", {"X-Error-Code": code, "X-Error-Message": "not there"})
            return
        if repository.gated and "authorization" not in {name.lower() for name in self.headers}:
            self._send(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            return
        data = repository.files[path]
        headers = {
            "Location": f"{self.server.contents_url}/contents/{name}/{quote(path)}?signed=1",
            "X-Repo-Commit": "3" * 40,
            "X-Linked-Etag": f'"{sha256(data)}"',
            "X-Linked-Size": str(len(data)),
            "ETag": f'"{"4" * 40}"',
        }
        if self.server.xet:
            headers |= {
                "X-Xet-Hash": "5" * 64,
                "X-Xet-Refresh-Route": f"{self.server.url}/api/models/{name}/xet-read-token/main",
                "Link": f'<{self.server.xet}/auth>; rel="xet-auth"',
            }
        self._send(302, b"", headers)

    def _modelscope(self, name: str, what: str, query: dict[str, list[str]]) -> None:
        repository = self.server.repositories.get(name)
        if repository is None:
            self._send(404, b'{"Code": 10010205001, "Message": "not found", "Success": false}')
        elif what == "repo/files":
            if self._fault(self.server.listing_faults):
                return
            files = [{"Path": "q4", "Type": "tree", "Size": 0, "Sha256": ""}]
            for path, data in repository.files.items():
                files.append({"Path": path, "Type": "blob", "Size": len(data), "Sha256": sha256(data)})  # type: ignore[dict-item]
            answer = {"Code": 200, "Data": {"Files": files}, "Success": True}
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        else:
            path = query["FilePath"][0]
            if path not in repository.files:
                self._send(404, b"")
                return
            self._send(302, b"", {"Location": f"{self.server.contents_url}/contents/{name}/{quote(path)}?signed=1"})

    def _contents(self, name: str, path: str) -> None:
        repository = self.server.repositories.get(name)
        data = self.server.lies.get(path) or (repository.files.get(path) if repository else None)
        if data is None:
            self._send(404, b"")
            return
        with self.server.lock:
            fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdigit():
            self._send(int(fault), b"", {"Retry-After": self.server.retry_after} if self.server.retry_after else {})
            return
        start, end, status, headers = 0, len(data), 200, {"ETag": f'"{sha256(data)}"'}
        asked = self.headers.get("Range")
        if self.server.ranges and asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last) + 1 if last else len(data), len(data)), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        self._send(status, data[start:end], headers, cut=fault == "drop")
        with self.server.lock:
            self.server.at_once -= 1

    def _fault(self, faults: list[str]) -> bool:
        fault = faults.pop(0) if faults else ""
        if fault == "stall":
            time.sleep(10)
        elif fault:
            self._send(int(fault), b"", {"Retry-After": self.server.retry_after} if self.server.retry_after else {})
        return bool(fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            if cut:
                body = body[: len(body) // 2]
            if self.server.bytes_per_second:
                step = max(1, int(self.server.bytes_per_second / 50))
                for at in range(0, len(body), step):
                    self.wfile.write(body[at : at + step])
                    time.sleep(0.02)
            else:
                self.wfile.write(body)
            if cut:
                self.wfile.flush()
                self.close_connection = True
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


@contextlib.contextmanager
def answering(server: S) -> Iterator[S]:
    """The server, which answers in a thread until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def running() -> contextlib.AbstractContextManager[Hub]:
    """A stand-in that answers until the end of the block."""
    return answering(Hub())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in hub that HF_ENDPOINT and MODELSCOPE_ENDPOINT point to."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        yield server
