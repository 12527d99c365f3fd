import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from seventy import LLM, SeventyError
from seventy.server import listen
from seventy.server.guard import Rules, read_keys
from tests.server.conftest import Running, serving

BODY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
KEYED = {"Authorization": "Bearer secret-a"}


@pytest.fixture(scope="module")
def guarded(tiny: Path) -> Iterator[Running]:
    rules = Rules({"anna": "secret-a", "bo": "secret-b"}, ["box.lan"], ["https://ui.lan"], 20_000, 0.5)
    with serving(tiny, rules=rules) as running:
        running.wait()
        yield running


def raw(server: Running, data: bytes) -> bytes:
    """What the server says to these bytes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def post(server: Running, body: bytes, **headers: str) -> httpx.Response:
    headers = {"Content-Type": "application/json", **KEYED, **headers}
    return server.client.post("/v1/chat/completions", content=body, headers=headers)


def test_keys_are_wanted_everywhere_but_for_the_page_and_health(guarded: Running) -> None:
    client = guarded.client
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret-a"}, {"x-api-key": "é".encode()}):
        response = client.post("/v1/chat/completions", json=BODY, headers=headers)
        assert response.status_code == 401, headers
        assert response.json()["error"]["code"] == "invalid_api_key"
    for headers in (KEYED, {"Authorization": "bearer secret-b"}, {"x-api-key": "secret-b"}):
        assert client.post("/v1/chat/completions", json=BODY, headers=headers).status_code == 200
    for path in ("/", "/health"):
        assert client.get(path).status_code == 200
    for path in ("/metrics", "/status", "/v1/models", "/api/tags", "/openapi.json"):
        assert client.get(path).status_code == 401


def test_users_are_the_names_of_keys(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    users = []
    submit = guarded.backend.scheduler.submit

    def seen(request: Any) -> None:
        users.append(request.user)
        submit(request)

    monkeypatch.setattr(guarded.backend.scheduler, "submit", seen)
    for key in ("secret-a", "secret-b"):
        post(guarded, json.dumps(BODY).encode(), Authorization=f"Bearer {key}")
    assert users == ["anna", "bo"]


def test_names_that_are_not_ours_are_refused(guarded: Running) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "", "box.lan.", "é"):
        response = guarded.client.get("/v1/models", headers={**KEYED, "Host": host.encode("latin-1")})
        assert response.status_code == 403, host
        assert response.json()["error"]["code"] == "wrong_host"
    for host in ("localhost:1", "127.0.0.1", "[::1]:8070", "192.168.1.5:8070", "BOX.lan", "box.lan:8070"):
        assert guarded.client.get("/v1/models", headers={**KEYED, "Host": host}).status_code == 200, host


def test_pages_of_other_sites_are_refused_unless_allowed(guarded: Running) -> None:
    client, host = guarded.client, guarded.url.removeprefix("http://")
    for origin in ("https://evil.example", "null", f"http://{host}.evil.example", "http://["):
        response = client.post("/v1/chat/completions", json=BODY, headers={**KEYED, "Origin": origin})
        assert response.status_code == 403, origin
        assert "access-control-allow-origin" not in response.headers
    assert client.get("/v1/models", headers={**KEYED, "Origin": f"http://{host}"}).status_code == 200
    allowed = client.get("/v1/models", headers={**KEYED, "Origin": "https://ui.lan"})
    assert allowed.headers["access-control-allow-origin"] == "https://ui.lan"
    # Spelled as clients that mind it look for it.
    assert b"Access-Control-Allow-Origin" in dict(allowed.headers.raw)
    asked = {"Origin": "https://ui.lan", "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/models", headers=asked).status_code == 200
    for path, methods in (("/history/x", "GET, POST, PUT, DELETE, OPTIONS"), ("/x", "GET, POST, DELETE, OPTIONS")):
        may = client.options(path, headers={**asked, "Access-Control-Request-Method": "PUT"})
        assert may.headers["access-control-allow-methods"] == methods


def test_what_another_sites_page_asks_for_is_no_owners(tiny: Path) -> None:
    with serving(tiny) as server:
        # A picture has no origin.
        for site, status in ((None, 200), ("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403)):
            headers = {"Sec-Fetch-Site": site} if site else {}
            assert server.client.get("/files", headers=headers).status_code == status, site


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "the body is no JSON"),
        (b"", "Field required"),
        (b"\xff\xfe\x00", ""),
        (b'{"messages": "\xff"}', ""),
        (b"[" * 19_000, ""),
        (b"null", ""),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 1e999}', "max_tokens"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "content"),
        (b'{"messages": {"role": "user"}}', "messages"),
    ],
)
def test_broken_bodies_are_answered_properly(guarded: Running, body: bytes, said: str) -> None:
    response = post(guarded, body)
    assert response.status_code == 400, response.text
    assert said in response.json()["error"]["message"]


def test_half_characters_are_read(guarded: Running) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud800 \\udc00"}], "max_tokens": 2, "stop": "\\ud800"}'
    assert post(guarded, body).status_code == 200


def test_huge_bodies_are_refused(guarded: Running) -> None:
    assert post(guarded, b" " * 20_001).status_code == 413
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret-a\r\n"
    # Without a length, in chunks without end.
    chunks = (b"%x\r\n" % 8000 + b" " * 8000 + b"\r\n") * 3
    assert b" 413 " in raw(guarded, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert b" 413 " in raw(guarded, head + b"Content-Length: 99999999999\r\n\r\n")


def test_slow_clients_are_let_go(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret-a\r\n"
    assert b" 408 " in raw(guarded, head + b"Content-Length: 100\r\n\r\n{")
    monkeypatch.setattr(listen, "HEADER_SECONDS", 0.3)
    assert raw(guarded, b"GET / HTTP/1.1\r\nHost: local") == b""
    assert raw(guarded, b"") == b""


def test_long_headers_and_what_is_no_http_are_refused(guarded: Running) -> None:
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
    assert b" 431 " in raw(guarded, head + b"x" * 60_000 + b"\r\n\r\n")
    # An end of it is not waited for.
    with contextlib.suppress(ConnectionError):
        assert b" 400 " in raw(guarded, head + b"x" * 5_000_000)
    assert b" 400 " in raw(guarded, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")


def test_who_reads_nothing_is_given_up(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "STALLED_SECONDS", 0.2)
    with serving(tiny, context=2048) as server:
        server.wait()
        host, port = server.url.removeprefix("http://").split(":")
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        body = json.dumps(
            {**BODY, "stream": True, "max_tokens": 1900, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
        ).encode()
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Content-Type: application/json\r\n\r\n" % len(body) + body
        )
        while not server.backend.scheduler.statistics.written_tokens:
            time.sleep(0.01)
        server.idle()
        connection.close()


def test_a_client_that_goes_frees_its_pages(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics, step = guarded.backend.scheduler.statistics, guarded.backend.llm.model.step
    # Slow enough that no answer ends by itself.
    monkeypatch.setattr(guarded.backend.llm.model, "step", lambda *of: (time.sleep(0.1), step(*of))[1])
    for stream in (True, False):
        cancelled = statistics.cancelled
        body = json.dumps({**BODY, "stream": stream, "max_tokens": 400, "ignore_eos": True}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret-a\r\n"
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", int(guarded.url.rpartition(":")[2]))) as connection:
            connection.sendall(head + body)
            while not statistics.running:
                time.sleep(0.01)
        guarded.idle()
        assert statistics.cancelled == cancelled + 1


def test_the_loop_answers_while_a_step_runs(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    going, entered, step = threading.Event(), threading.Event(), guarded.backend.llm.model.step

    def held(*of: Any) -> Any:
        entered.set()
        going.wait(60)
        return step(*of)

    monkeypatch.setattr(guarded.backend.llm.model, "step", held)
    thread = threading.Thread(target=post, args=(guarded, json.dumps(BODY).encode()))
    thread.start()
    try:
        entered.wait(60)
        assert guarded.client.get("/health").json() == {"status": "ok"}
        assert guarded.client.get("/status", headers=KEYED).json()["running"] == 1
    finally:
        going.set()
        thread.join()


def test_a_full_queue_says_when_to_come_back(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny, parallel=1, queue=1) as server:
        server.wait()
        going, step = threading.Event(), server.backend.llm.model.step
        monkeypatch.setattr(server.backend.llm.model, "step", lambda *of: (going.wait(60), step(*of))[1])
        threads = []
        for _ in range(2):
            taken = server.backend.scheduler.statistics.requests
            threads.append(threading.Thread(target=server.chat, kwargs={"max_tokens": 2}))
            threads[-1].start()
            while server.backend.scheduler.statistics.requests == taken or not server.backend.scheduler._batch:
                time.sleep(0.01)
        response = server.client.post("/v1/chat/completions", json=BODY)
        assert response.status_code == 429
        assert int(response.headers["Retry-After"]) >= 1
        assert response.json()["error"]["type"] == "rate_limit_error"
        going.set()
        for thread in threads:
            thread.join()


def test_while_the_model_loads_health_tells_how_far(tiny: Path) -> None:
    told, go_on = threading.Event(), threading.Event()

    def load(progress: Any) -> LLM:
        progress("loading weights", 40, 100)
        told.set()
        go_on.wait(60)
        return LLM(tiny, threads=1, context=256)

    with serving(tiny, load=load) as server:
        told.wait(60)
        health = server.client.get("/health")
        assert health.status_code == 503
        assert health.json() == {"status": "loading", "what": "loading weights", "progress": 0.4}
        response = server.client.post("/v1/chat/completions", json=BODY)
        assert response.status_code == 503
        assert response.json()["error"]["message"] == "the model is loading (loading weights, 40%); try again"
        assert server.client.get("/v1/models").status_code == 200
        assert server.client.get("/metrics").status_code == 200
        go_on.set()
        server.wait()
        assert server.client.get("/health").status_code == 200


def test_a_model_that_cannot_be_loaded_is_told(tiny: Path) -> None:
    def load(progress: Any) -> LLM:
        raise SeventyError("the file is broken")

    with serving(tiny, load=load) as server:
        server.wait()
        assert server.client.get("/health").json() == {"status": "failed"}
        response = server.client.post("/v1/chat/completions", json=BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_not_loaded")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_an_engine_that_broke(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    with serving(tiny) as server:
        server.wait()
        monkeypatch.setattr(server.backend.scheduler, "_plan", broken)
        response = server.client.post("/v1/chat/completions", json=BODY)
        assert response.status_code == 500 and "a bug" in response.json()["error"]["message"]
        server.backend.scheduler._thread.join()
        health = server.client.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "failed"})
        assert server.client.post("/v1/chat/completions", json=BODY).status_code == 503


def test_keys_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# the house\nanna  s3cret owner\n\nbo other\n")
    assert read_keys(path) == ({"anna": "s3cret", "bo": "other"}, {"anna"})
    line = "line 1: a line is"
    for text, said in (("anna", line), ("a b king", line), ("", "holds no keys"), ("a b\na c", "each name once")):
        path.write_text(text)
        with pytest.raises(SeventyError, match=said):
            read_keys(path)
    with pytest.raises(SeventyError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_prompts_are_logged_only_when_asked(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "seventy.server")
    for wanted in (False, True):
        with serving(tiny, log_prompts=wanted) as server:
            server.wait()
            server.chat("a secret", max_tokens=2)
        assert ("a secret" in caplog.text) is wanted


@pytest.mark.parametrize(("max_seconds", "whole"), [(0.5, False), (3600.0, True)])
def test_a_request_has_a_longest_time(
    max_seconds: float, whole: bool, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tiny, max_seconds=max_seconds) as server:
        server.wait()
        model, step = server.backend.llm.model, server.backend.llm.model.step
        # 30 tokens take 3 s at least.
        monkeypatch.setattr(model, "step", lambda *of: (time.sleep(0.1), step(*of))[1])
        answer = server.chat("x", max_tokens=30, ignore_eos=True)
        assert (answer["usage"]["completion_tokens"] == 30) is whole


def test_a_port_that_is_taken_is_named() -> None:
    with listen.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SeventyError, match=rf"port {port} of 127\.0\.0\.1 is taken"):
            listen.bind("127.0.0.1", port)
    with pytest.raises(SeventyError, match=r"cannot listen on 203\.0\.113\.1"):
        listen.bind("203.0.113.1", 0)


def test_every_answer_has_the_policy(guarded: Running) -> None:
    for path in ("/", "/page/app.js", "/page/nothing", "/health", "/status", "/v1/models", "/nowhere"):
        policy = guarded.client.get(path).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    wrong = guarded.client.get("/", headers={"Host": "evil.example"})
    assert wrong.status_code == 403 and "content-security-policy" in wrong.headers


def test_pages_of_this_machine_may_be_allowed_at_any_port(tiny: Path) -> None:
    with serving(tiny, rules=Rules(origins=["localhost"])) as server:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-stainless-os"}
        for origin in ("http://localhost", "http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:3000"):
            answer = server.client.options("/v1/chat/completions", headers={**asked, "Origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-allow-headers"] == "x-stainless-os"
        for origin in ("http://evil.com", "http://notlocalhost", "http://localhost.evil.com", "null"):
            answer = server.client.options("/", headers={**asked, "Origin": origin})
            assert "access-control-allow-origin" not in answer.headers
            assert server.client.post("/v1/chat/completions", json=BODY, headers={"Origin": origin}).status_code == 403


def test_idle_connections_make_room(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny) as server, contextlib.ExitStack() as held:
        monkeypatch.setattr(listen.PatientProtocol, "max_connections", 4)
        address = server.url.removeprefix("http://").split(":")
        for _ in range(20):
            held.enter_context(socket.create_connection((address[0], int(address[1]))))
            assert httpx.get(server.url + "/health").status_code in (200, 503)


def test_the_longest_idle_connection_makes_room(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny) as server, contextlib.ExitStack() as held:
        monkeypatch.setattr(listen.PatientProtocol, "max_connections", 4)
        host, port = server.url.removeprefix("http://").split(":")
        used = held.enter_context(httpx.Client(base_url=server.url))
        used.get("/health")
        others = [held.enter_context(socket.create_connection((host, int(port)))) for _ in range(3)]
        # They are accepted by now.
        time.sleep(0.2)
        # What was answered last is idle for the shortest time.
        assert used.get("/health").status_code == 200
        held.enter_context(socket.create_connection((host, int(port))))
        others[0].settimeout(30)
        assert others[0].recv(1) == b""
        others[1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            others[1].recv(1)


def test_what_the_loop_lacks_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    complain, loop = listen.Complaints(), asyncio.new_event_loop()
    for _ in range(100):
        complain(loop, {"message": "accept", "exception": OSError(24, "Too many open files")})
    loop.close()
    assert [record.getMessage() for record in caplog.records] == ["accept: Too many open files"]
