"""Answers for the page: they go on alone, for a while, and conversations that outgrew the context are shortened."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from seventy import LLM
from seventy.server import kept
from seventy.server.guard import Rules
from tests.server.conftest import Running, serving

ANNA, BO = ({"Authorization": f"Bearer secret-{name}"} for name in ("anna", "bo"))
QUESTION = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[Running]:
    rules = Rules({"anna": "secret-anna", "bo": "secret-bo"}, owners=["bo"])
    with serving(tiny, context=1024, parallel=1, rules=rules) as running:
        running.wait()
        yield running


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(kept, "LOOK_SECONDS", 0.02)


@pytest.fixture
def slow(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is still being written when the server looks at it."""
    model = server.backend.llm.model
    step = model.step
    monkeypatch.setattr(model, "step", lambda *of: (time.sleep(0.02), step(*of))[1])


def body(tokens: int = 600, **more: Any) -> dict[str, Any]:
    return {"messages": QUESTION, "max_tokens": tokens, "ignore_eos": True, "seed": 7, "stream": True} | more


def new_id() -> str:
    return secrets.token_urlsafe(18)


def begin(server: Running, id: str, user: dict[str, str] = ANNA, pieces: int = 3, **more: Any) -> None:
    """Ask, read a little, and go."""
    with server.client.stream("POST", f"/answers/{id}", json=body(**more), headers=user) as response:
        assert response.status_code == 200
        for _ in zip(range(pieces), response.iter_lines(), strict=False):
            pass


def read(server: Running, id: str, user: dict[str, str] = ANNA) -> list[dict[str, Any]]:
    return events_of(server.client.get(f"/answers/{id}", headers=user))


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def text(events: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ()))


def until(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_an_answer_goes_on_alone_and_is_read_from_its_beginning(server: Running) -> None:
    whole = server.client.post("/v1/chat/completions", json=body(stream=False), headers=ANNA).json()
    id = new_id()
    begin(server, id)
    events = read(server, id)
    assert text(events) == whole["choices"][0]["message"]["content"]
    assert events[0]["object"] == "answer.fitted" and events[0]["left_out"] == 0 and events[0]["context"] == 1024
    # It is kept until the page says that it has it: what was sent need not have arrived.
    assert read(server, id) == events
    assert server.client.delete(f"/answers/{id}", headers=ANNA).status_code == 204
    assert server.client.get(f"/answers/{id}", headers=ANNA).status_code == 404
    server.idle()


def test_another_users_answer_is_none(server: Running) -> None:
    id = new_id()
    begin(server, id)
    assert server.client.delete(f"/answers/{id}", headers=BO).status_code == 204
    assert server.client.get(f"/answers/{id}", headers=BO).status_code == 404
    assert server.client.get(f"/answers/{id}").status_code == 401
    # Nor could the other one stop it.
    events = read(server, id)
    assert text(events) and not [event for event in events if event["object"] == "answer.stopped"]


def test_asked_twice_it_is_one_answer(server: Running) -> None:
    id, before = new_id(), server.backend.scheduler.statistics.requests
    begin(server, id)
    begin(server, id)
    read(server, id)
    assert server.backend.scheduler.statistics.requests == before + 1


def test_stopped_it_keeps_what_was_written(server: Running) -> None:
    id = new_id()
    begin(server, id, pieces=20)
    assert server.client.delete(f"/answers/{id}", headers=ANNA).status_code == 204
    events = read(server, id)
    assert {"object": "answer.stopped", "reason": "stopped"} in events and text(events)
    server.idle()


@pytest.mark.usefixtures("slow")
def test_alone_it_gives_way_to_who_waits(server: Running) -> None:
    id = new_id()
    begin(server, id, tokens=900)
    # There is room for one: this one waits until the other has left.
    assert server.client.post("/v1/chat/completions", json=body(2, stream=False), headers=BO).status_code == 200
    assert {"object": "answer.stopped", "reason": "gave_way"} in read(server, id)


def test_a_user_has_one_that_goes_on_alone(tiny: Path) -> None:
    # There is room for both: nobody waits.
    with serving(tiny, context=1024, parallel=2) as server:
        server.wait()
        first, second = new_id(), new_id()
        begin(server, first, tokens=900)
        begin(server, second, tokens=900)
        until(lambda: server.backend.scheduler.statistics.cancelled)
        assert {"object": "answer.stopped", "reason": "gave_way"} in read(server, first)
        assert not [event for event in read(server, second) if event["object"] == "answer.stopped"]


@pytest.mark.usefixtures("slow")
def test_alone_it_stops_after_a_while(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "ALONE_SECONDS", 0.0)
    id = new_id()
    begin(server, id, tokens=900)
    server.idle()
    assert {"object": "answer.stopped", "reason": "alone"} in read(server, id)


def test_requests_to_the_api_stop_when_their_client_goes(server: Running) -> None:
    before = server.backend.scheduler.statistics.cancelled
    with server.client.stream("POST", "/v1/chat/completions", json=body(900), headers=ANNA) as response:
        next(response.iter_lines())
    server.idle()
    assert server.backend.scheduler.statistics.cancelled == before + 1


@pytest.mark.parametrize(("turns", "long"), [(40, False), (1, False), (40, True), (400, False)])
def test_the_oldest_turns_are_left_out(server: Running, turns: int, long: bool) -> None:
    system = {"role": "system", "content": "Be brief."}
    history = [
        message for at in range(turns)
        for message in (
            {"role": "user", "content": f"question {at} " * 4}, {"role": "assistant", "content": f"answer {at} " * 4},
        )
    ]  # fmt: skip
    last = {"role": "user", "content": "And now? " * (80 if long else 1)}
    asked = body(4, messages=[system, *history, last])
    events = events_of(server.client.post(f"/answers/{new_id()}", json=asked, headers=ANNA))
    fitted = events[0]
    assert text(events)
    if turns == 1:
        assert fitted["left_out"] == 0
        return
    # What is left begins with a question, and the next turn leaves out the same.
    assert fitted["left_out"] > 0 and fitted["left_out"] % 2 == 0
    assert fitted["prompt_tokens"] <= 1024
    if not long:
        assert 256 < fitted["prompt_tokens"] <= 512


def test_a_question_that_is_too_long_fails_by_itself(server: Running) -> None:
    before = [*QUESTION, {"role": "assistant", "content": "Hello!"}]
    asked = body(messages=[*before, {"role": "user", "content": "word " * 4000}])
    events = events_of(server.client.post(f"/answers/{new_id()}", json=asked, headers=ANNA))
    error = events[-1]
    assert events[0]["left_out"] == 0
    assert error["error"]["code"] == "context_length_exceeded" and error["status"] == 400


def test_asked_while_the_model_loads_it_may_be_asked_again(tiny: Path) -> None:
    go_on = threading.Event()

    def load(progress: Any) -> LLM:
        go_on.wait(60)
        return LLM(tiny, 1, 256)

    with serving(tiny, load=load) as server:
        id = new_id()

        def ask() -> str:
            return server.client.post(f"/answers/{id}", json=body(3)).text

        assert "model_loading" in ask()
        go_on.set()
        server.wait()
        assert '"content"' in ask()


def test_an_answer_is_one_text_without_probabilities(server: Running) -> None:
    more = {"n": 3, "logprobs": True, "top_logprobs": 20, "stream": False}
    events = events_of(server.client.post(f"/answers/{new_id()}", json=body(4, **more), headers=ANNA))
    choices = [choice for event in events for choice in event.get("choices", ())]
    assert text(events) and {choice["index"] for choice in choices} == {0}
    assert not [choice for choice in choices if choice.get("logprobs")]


def test_what_is_kept_has_bounds_in_bytes(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [new_id() for _ in range(3)]
    sizes = []
    for id in ids:
        answer = server.client.post(f"/answers/{id}", json=body(20), headers=ANNA)
        sizes.append(len(answer.content))
        time.sleep(0.05)
    monkeypatch.setattr(kept, "_MAX_BYTES", sizes[1] + sizes[2])
    # They are looked at every 0.02 s; the oldest goes. To ask for it would make it the youngest.
    time.sleep(1)
    assert server.client.get(f"/answers/{ids[0]}", headers=ANNA).status_code == 404
    assert all(text(read(server, id)) for id in ids[1:])


def test_ids_are_the_pages_own_and_no_guess(server: Running) -> None:
    for id in ("short", "x" * 65, "a" * 15 + "!"):
        assert server.client.post(f"/answers/{id}", json=body(), headers=ANNA).status_code == 400
