"""Several models in one server: which is chosen, who waits, who leaves, and that nothing is lost."""

import json
import math
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from seventy import LLM, SeventyError
from seventy.engine.model import Progress
from seventy.runtime.reservations import TooLittleMemory
from seventy.server import switch
from seventy.server.keep_alive import keep_alive_seconds
from seventy.server.pool import ModelPool
from seventy.server.served import ServedModel
from tests.server.conftest import Loads, Running, running

NAMES = ("ada", "bob", "cyd", "dan", "eve")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, Path]:
    """The same bytes under five names: what they say is alike, so the kernels are compiled once."""
    folder = tmp_path_factory.mktemp("several")
    for name in NAMES:
        (folder / f"{name}.gguf").hardlink_to(tiny)
    return {name: folder / f"{name}.gguf" for name in NAMES}


class Rooms(ModelPool):
    """A pool in a machine with memory for so many models, which notes what is loaded and when."""

    def __init__(self, files: dict[str, Path], names: tuple[str, ...], most: int, **options: Any) -> None:
        self.loaded: list[str] = []
        self.most_at_once = 0
        loads = options.pop("loads", None) or Loads(512, parallel=options.pop("parallel", 4))
        models = [ServedModel(name, files[name]) for name in names]
        loads.bytes_each, bring = 1, loads.load

        def load(path: Path, progress: Progress, memory: int | None) -> LLM:
            self.loaded.append(path.stem)
            llm = bring(path, progress, memory)
            self.most_at_once = max(self.most_at_once, 1 + self._here())
            return llm

        loads.load = load
        super().__init__(models, loads, room=lambda: most - self._here(), **options)

    def _here(self) -> int:
        return sum(model.backend is not None for model in self._roster.every)


@pytest.fixture
def memory_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model holds one byte of memory, as far as the pool is told."""
    monkeypatch.setattr(ServedModel, "memory_bytes", property(lambda model: int(model.backend is not None)))


Several = Callable[..., Any]


@pytest.fixture
def several(files: dict[str, Path], memory_bytes: None) -> Several:
    def serve(names: tuple[str, ...] = NAMES[:2], most: int = 1, **options: Any) -> Any:
        return running(Rooms(files, names, most, **options))

    return serve


def ask(server: Running, model: str | None, tokens: int = 3, **options: Any) -> dict[str, Any]:
    return server.chat("x", model=model, max_tokens=tokens, ignore_eos=True, **options)


def held(server: Running, name: str, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Steps of a loaded model wait until this is set."""
    backend = server.pool.find(name).backend
    assert backend
    go_on, step = threading.Event(), backend.llm.model.step
    monkeypatch.setattr(backend.llm.model, "step", lambda *batch: (go_on.wait(60), step(*batch))[1])
    return go_on


def until(condition: Callable[[], object]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300.0), (300, 300.0), ("1h30m", 5400.0), ("0", 0.0), ("1.5s", 1.5), (-1, math.inf), ("-1m", math.inf)],
)
def test_durations_are_those_of_ollama(text: str | float, seconds: float) -> None:
    assert keep_alive_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "1m5", "--1", "1e9x"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of seconds or a duration"):
        keep_alive_seconds(text)


def test_a_request_chooses_its_model(several: Several) -> None:
    with several(most=2) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["ada", "bob"]
        for name in ("bob", "ada"):
            answer = client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": "x"}], max_tokens=2
            )
            assert answer.model == name
        assert ask(server, None)["model"] == "ada" and server.pool.loaded == ["ada", "bob"]
        for name in ("cyd", "./ada.gguf", str(server.pool.default.path), "https://example.org/x.gguf", "hf:o/r"):
            with pytest.raises(openai.NotFoundError, match=r"not found; this server has 'ada', 'bob'") as error:
                client.completions.create(model=name, prompt="x")
            assert error.value.code == "model_not_found"
            answer = server.client.post("/api/generate", json={"model": name, "prompt": "x"})
            assert answer.status_code == 404 and "not found" in answer.json()["error"]


def test_one_model_goes_by_any_name_in_openais_api(random_model: Running) -> None:
    assert ask(random_model, "gpt-4o")["model"] == random_model.model
    body = {"model": "gpt-4o", "prompt": "x"}
    assert random_model.client.post("/api/generate", json=body).status_code == 404


def test_the_longest_unused_leaves(several: Several) -> None:
    with several(NAMES[:3], most=2) as server:
        for name in ("ada", "bob", "ada", "cyd", "ada", "bob"):
            assert ask(server, name)["model"] == name
        assert server.pool.loaded == ["ada", "bob", "cyd", "bob"]
        assert server.pool.most_at_once == 2
        # What those counted that left is not forgotten.
        assert "seventy_requests_total 6.0" in server.client.get("/metrics").text
        assert "seventy_model_loads_total 4.0" in server.client.get("/metrics").text


def test_one_in_use_stays_until_it_has_answered(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    with several() as server, ThreadPoolExecutor(8) as threads:
        server.wait()
        go_on = held(server, "ada", monkeypatch)
        first = threads.submit(ask, server, "ada")
        until(lambda: server.backend.scheduler.statistics.running)
        other = threads.submit(ask, server, "bob")
        until(lambda: server.pool.waiting)
        # Nobody's turn is over: who asks for the model that is there goes on.
        more = threads.submit(ask, server, "ada")
        until(lambda: server.backend.scheduler.statistics.requests == 2)
        assert not other.done() and server.pool.loaded == ["ada"]
        go_on.set()
        assert [one.result()["model"] for one in (first, more, other)] == ["ada", "ada", "bob"]
        assert server.pool.loaded == ["ada", "bob"]


def test_a_turn_ends_and_what_waited_in_it_is_answered_later(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "TURN_SECONDS", 0.3)
    with several(parallel=1) as server, ThreadPoolExecutor(8) as threads:
        server.wait()
        go_on, done = held(server, "ada", monkeypatch), []

        def asking(name: str) -> None:
            ask(server, name)
            done.append(name)

        work = [threads.submit(asking, "ada") for _ in range(4)]
        until(lambda: server.backend.scheduler.statistics.requests == 4)
        work.append(threads.submit(asking, "bob"))
        # Its turn is over: three that have not begun wait in the pool, and the one that runs goes on.
        until(lambda: server.pool.waiting == 4)
        work.append(threads.submit(asking, "ada"))
        until(lambda: server.pool.waiting == 5)
        go_on.set()
        for each in work:
            each.result()
        assert sorted(done) == ["ada"] * 5 + ["bob"] and done[0] == "ada"
        # Had the others been answered in the first turn, ada would not have come again for them. A machine so busy that
        # bob's turn ends before his request has begun brings him once more.
        assert server.pool.loaded[:3] == ["ada", "bob", "ada"]


def test_a_client_that_goes_does_not_wait(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "TURN_SECONDS", 0.1)
    with several(parallel=1) as server, ThreadPoolExecutor(8) as threads:
        server.wait()
        go_on = held(server, "ada", monkeypatch)
        first = threads.submit(ask, server, "ada")
        until(lambda: server.backend.scheduler.statistics.running)
        gone = list[socket.socket]()
        for name in ("ada", "bob"):
            body = {"model": name, "messages": [{"role": "user", "content": "x"}], "stream": True}
            gone.append(_post(server, json.dumps(body).encode()))
            until(lambda: server.backend.scheduler.statistics.queued or server.pool.waiting)
        # One waits in the pool for its turn to come again, the other for its model.
        until(lambda: server.pool.waiting == 2)
        for connection in gone:
            connection.close()
        until(lambda: not server.pool.waiting)
        go_on.set()
        assert first.result()["model"] == "ada" and ask(server, "ada")["model"] == "ada"
        assert server.pool.loaded == ["ada"]


def _post(server: Running, body: bytes) -> socket.socket:
    """A request whose answer is not waited for."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_unused_models_leave_after_their_time(several: Several) -> None:
    with several(most=2, keep_alive=3600.0) as server:
        client = server.client
        server.wait()
        loaded = client.get("/api/ps").json()["models"]
        assert [model["name"] for model in loaded] == ["ada"] and loaded[0]["expires_at"]
        for body in ({"model": "bob", "keep_alive": "0.2s", "prompt": "x"}, {"model": "ada", "keep_alive": 0}):
            client.post("/api/generate", json={**body, "options": {"num_predict": 1}, "stream": False})
        until(lambda: client.get("/api/ps").json()["models"] == [])
        assert client.get("/health").json() == {"status": "ok"}
        loads = server.pool.loads
        for reason, seconds in (("unload", 0), ("load", -1), ("unload", 0)):
            answer = client.post("/api/chat", json={"model": "bob", "keep_alive": seconds, "stream": False}).json()
            assert (answer["model"], answer["done_reason"]) == ("bob", reason)
        until(lambda: client.get("/api/ps").json()["models"] == [])
        assert server.pool.loads == loads + 1
        # They come again when they are asked for, and stay as long as the server says.
        assert ask(server, "bob")["model"] == "bob"
        assert server.pool.find("bob").keep_alive == 3600.0
        assert client.post("/api/generate", json={"model": "bob", "keep_alive": "soon"}).status_code == 400


def test_too_many_that_wait_are_sent_away(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    with several(queue=2) as server, ThreadPoolExecutor(8) as threads:
        server.wait()
        go_on = held(server, "ada", monkeypatch)
        threads.submit(ask, server, "ada")
        until(lambda: server.backend.scheduler.statistics.running)
        waiting = threads.submit(ask, server, "bob")
        until(lambda: server.pool.waiting == 1)
        answer = server.client.post("/v1/completions", json={"model": "bob", "prompt": "x"})
        assert answer.status_code == 429 and int(answer.headers["Retry-After"]) and "1 of them yours" in answer.text
        go_on.set()
        assert waiting.result()["model"] == "bob"


def test_loading_is_shown_and_what_fails_is_told(several: Several, files: dict[str, Path]) -> None:
    told, go_on, loads = threading.Event(), threading.Event(), Loads(512)

    def instead(path: Path, progress: Progress) -> None:
        if path.stem == "bob":
            progress("loading weights", 40, 100)
            told.set()
            go_on.wait(60)
            raise SeventyError("the file is broken")

    plain = loads.load
    loads.load = lambda path, progress, memory: (instead(path, progress), plain(path, progress, memory))[1]
    with several(most=2, loads=loads) as server, ThreadPoolExecutor(2) as threads:
        server.wait()
        failing = threads.submit(server.client.post, "/v1/completions", json={"model": "bob", "prompt": "x"})
        told.wait(60)
        health = server.client.get("/health")
        shown = {"model": "bob", "what": "loading weights", "progress": 0.4}
        assert (health.status_code, health.json()) == (200, {"status": "ok", "loading": [shown]})
        status = server.client.get("/status", params={"model": "bob"}).json()
        assert (status["state"], status["progress"]) == ("loading", 0.4)
        assert [(each["name"], each["state"]) for each in status["models"]] == [("ada", "ready"), ("bob", "loading")]
        assert status["owner"] and status["models"][1]["progress"] == 0.4
        assert ask(server, "ada")["model"] == "ada"
        go_on.set()
        answer = failing.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_loaded")
        assert "the file is broken" in answer.json()["error"]["message"]
        assert server.client.get("/status", params={"model": "bob"}).json()["error"] == "the file is broken"
        assert server.client.get("/health").status_code == 200


def test_memory_that_is_less_than_it_seemed_makes_the_others_leave(several: Several) -> None:
    loads, refused = Loads(512), []

    def load(path: Path, progress: Progress, memory: int | None) -> LLM:
        if path.stem == "bob" and not refused:
            refused.append(path)
            raise TooLittleMemory("bob needs more")
        return plain(path, progress, memory)

    plain, loads.load = loads.load, load  # type: ignore[method-assign]
    with several(most=2, loads=loads) as server:
        server.wait()
        assert ask(server, "bob")["model"] == "bob"
        assert refused and server.pool.find("ada").state == "absent"


def test_a_model_larger_than_the_machine_drives_nobody_out(several: Several) -> None:
    loads = Loads(512)
    with several(most=2, loads=loads) as server:
        server.wait()
        loads.bytes_each = 3
        answer = server.client.post("/v1/completions", json={"model": "bob", "prompt": "x"})
        assert answer.status_code == 503 and "of memory at least" in answer.json()["error"]["message"]
        assert server.pool.find("ada").ready


def test_closing_stops_a_model_that_loads(tiny: Path) -> None:
    entered = threading.Event()

    def load(progress: Progress) -> LLM:
        # A file that is never read to its end.
        while True:
            progress("loading weights", 1, 1000)
            entered.set()
            time.sleep(0.001)

    pool = ModelPool([ServedModel("large", tiny)], Loads(512, instead=load))
    pool.start()
    assert entered.wait(60)
    pool.close()
    assert pool.models[0].state == "failed" and "stopped" in pool.models[0].error


def test_a_bug_while_loading_leaves_its_traceback(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    def load(progress: Progress) -> LLM:
        raise ZeroDivisionError("of all things")

    pool = ModelPool([ServedModel("broken", tiny)], Loads(512, instead=load))
    pool.start()
    pool.wait()
    assert "of all things" in pool.models[0].error
    assert "Traceback" in caplog.text and "ZeroDivisionError" in caplog.text
    pool.close()


@pytest.mark.parametrize(("count", "requests"), [(2, 60), (5, 60)])
def test_eight_clients_of_several_models_lose_nothing(
    several: Several, monkeypatch: pytest.MonkeyPatch, count: int, requests: int
) -> None:
    monkeypatch.setattr(switch, "TURN_SECONDS", 0.2)
    names = NAMES[:count]
    with several(names, most=min(2, count - 1)) as server, ThreadPoolExecutor(8) as threads:
        alone = ask(server, "ada", 12, temperature=0)["choices"][0]["message"]["content"]

        def one(number: int) -> float:
            began = time.monotonic()
            answer = ask(server, names[number * 7 % count], 12, temperature=0)
            assert answer["model"] == names[number * 7 % count]
            assert answer["choices"][0]["message"]["content"] == alone
            return time.monotonic() - began

        waits = sorted(threads.map(one, range(requests)))
        text = server.client.get("/metrics").text
        print(f"{count} models, memory for {server.pool.most_at_once}: {len(server.pool.loaded)} loads, "
              f"longest wait {waits[-1]:.2f} s, median {waits[len(waits) // 2]:.2f} s")
        assert server.pool.most_at_once == min(2, count - 1)
        assert len(server.pool.loaded) > count and not server.pool.waiting
        assert "seventy_running_requests 0.0" in text




def test_a_server_whose_models_were_all_deleted_says_so(several: Several) -> None:
    with several(most=2) as server:
        server.wait()
        for model in server.pool.models:
            server.pool.remove(model)
        until(lambda: server.client.get("/api/tags").json()["models"] == [])
        answer = server.client.post("/v1/completions", json={"prompt": "x"})
        assert answer.status_code == 404 and "no model left" in answer.json()["error"]["message"]
        assert server.client.get("/health").status_code == 200
        assert server.client.get("/metrics").status_code == 200
        until(lambda: not server.pool._roster.every)
