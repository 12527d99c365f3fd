"""Large bodies: what is refused before it is read here, and what goes on as any other."""

import json
import sys
from typing import Any

import pytest

from seventy.server import _weigh, large, listen
from tests.server.conftest import Running

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MANY = 40_000


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 2, **more}


@pytest.mark.parametrize(
    "path, body",
    [
        (CHAT, said("a" * 500_000)),
        (CHAT, said("word " * MANY)),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a" * 500_000}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": "word " * 100}] * 500}),
        (TEXT, {"prompt": [1] * MANY}),
        (TEXT, {"prompt": ["short", "a " * MANY]}),
        (TEXT, {"prompt": [[1], [1] * MANY]}),
        ("/completion", {"prompt": ["a", *[1] * MANY]}),
        ("/api/generate", {"prompt": "word " * MANY, "model": "any"}),
        ("/v1/embeddings", {"input": "word " * MANY}),
    ],
)
def test_what_cannot_fit_is_refused(small_model: Running, path: str, body: dict[str, Any]) -> None:
    read = []
    backend = small_model.backend
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.llm, "prompt_ids", read.append)
        answer = small_model.client.post(path, json=body)
    assert answer.status_code == 400 and not read, answer.text
    assert "tokens at least, and the context of 2048 has no room" in answer.text


@pytest.mark.parametrize(
    "body, status, message",
    [
        (b'{"messages": [' + b" " * 100_000, 400, "the body is no JSON"),
        (b"[" * 200_000, 400, "nested too deeply"),
        (b"[" + b"1," * 50_000 + b"1]", 400, "no object"),
        (json.dumps(said("hi", tools=[{"x": [1] * 200_000}])).encode(), 413, "tools: more than 1048576 bytes beside"),
        (json.dumps({"messages": [{}] * 200_000}).encode(), 413, "messages: more than"),
        (json.dumps(said("hi", json_schema={"enum": ["x" * 2_000_000]})).encode(), 413, "json_schema: more than"),
        (json.dumps({"prompt": [[]] * 200_000}).encode(), 400, ""),
    ],
)
def test_what_cannot_be_meant_is_refused(small_model: Running, body: bytes, status: int, message: str) -> None:
    answer = small_model.client.post(CHAT, content=body)
    assert answer.status_code == status and message in answer.json()["error"]["message"], answer.text[:300]


def test_what_may_fit_is_answered(small_model: Running) -> None:
    body = said("Hello", metadata={"x": "y" * 100_000})
    answer = small_model.client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == small_model.chat("Hello", max_tokens=2)["usage"]["prompt_tokens"]


def test_sizes() -> None:
    """Texts of their own are not summed, those of one conversation are; what stands around a message counts nothing."""

    def size(**body: Any) -> tuple[int, int, int]:
        found = _weigh.weigh(json.dumps(body).encode())
        return found["bytes"], found["words"], found["ids"]

    assert size(prompt=["a b c", "abcdefg"]) == (7, 2, 0)
    assert size(prompt=[[1, 2], [3]]) == (0, 0, 2)
    assert size(prompt=["a", 1, 2]) == (1, 0, 3)
    assert size(messages=[{"content": "  ab "}, {"content": [{"type": "text", "text": "cd"}]}, {"content": None}]) == (
        4, 0, 0,
    )  # fmt: skip
    assert size(input=[{"role": "user", "content": "ab"}], instructions="abc") == (3, 0, 0)
    assert size(prompt={"prompt_string": "é"}, metadata={"text": "abc"}) == (2, 0, 0)
    assert size(prompt=7, messages="x", input=[]) == (1, 0, 0)
    # Of a reranking each document is a prompt, in either way of writing it.
    for text in (lambda each: each), (lambda each: {"text": each}):
        body = {"query": "ab", "documents": [text("a b c"), "abcdefg", text("x" * 6)]}
        assert size(**body) == (7, 2, 0) and _weigh.weigh(json.dumps(body).encode())["weight"] < 100


def test_its_process_may_end_or_never_begin(small_model: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_SCRIPT", large._SCRIPT.with_name("no such script.py"))
    middleware = large.LargeBodies(None, small_model.pool)  # type: ignore[arg-type]
    assert middleware._weigh(b"{}") is None, "its process ends"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert middleware._weigh(b"{}") == {}, "no process begins"
    monkeypatch.undo()
    found = middleware._weigh(b'{"prompt": "a b c"}')
    assert found and found["bytes"] == 5 and found["words"] == 2
    middleware._thread.shutdown()


def test_bodies_are_read_at_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(listen.time, "monotonic", lambda: now)
    pace, calls, laters = listen._Pace(), list[str](), list[Any]()

    class Transport:
        def pause_reading(self) -> None:
            calls.append("pause")

        def resume_reading(self) -> None:
            calls.append("resume")

    class Loop:
        def call_later(self, seconds: float, call: Any) -> Any:
            laters.append((seconds, call))
            return call

    flow = listen._PacedFlow(Transport(), Loop(), pace)  # type: ignore[arg-type]
    pace.read(1_000_000)
    flow.pause_reading()
    flow.resume_reading()
    assert calls == ["pause", "resume"], "a megabyte waits for nothing"
    pace.read(3_200_000)
    flow.pause_reading()
    flow.resume_reading()
    flow.resume_reading()
    assert calls[2:] == ["pause"] and [round(seconds, 6) for seconds, _ in laters] == [0.1]
    # Another connection read meanwhile.
    now = 0.1
    pace.read(320_000)
    laters.pop()[1]()
    assert calls[3:] == [] and round(laters[0][0], 6) == 0.01
    now = 0.2
    laters.pop()[1]()
    assert calls[3:] == ["resume"] and not laters
