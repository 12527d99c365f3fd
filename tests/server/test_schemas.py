import asyncio
import contextlib
from typing import Any

import pytest

from seventy.server.schemas import SamplingBody, whole_characters
from seventy.text.tokenizer import Tokenizer
from tests.server.conftest import Running


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", rb'{"prompt": "\ud800abc", "echo": true}'),
        ("/v1/completions", rb'{"prompt": "x", "stop": ["a", "\udc00"]}'),
        ("/v1/chat/completions", rb'{"messages": [{"role": "user", "content": "\ud83d"}]}'),
        ("/v1/chat/completions", rb'{"messages": [{"role": "user", "content": "x"}], "user": "\udfff"}'),
        ("/v1/embeddings", rb'{"input": ["fine", "\ud800"]}'),
        ("/tokenize", rb'{"content": "\ud800"}'),
        ("/api/generate", rb'{"prompt": "\ud800", "stream": false}'),
        ("/api/chat", rb'{"messages": [{"role": "user", "content": "\ud800"}]}'),
    ],
)  # fmt: skip
def test_half_characters_are_read_wherever_they_stand(path: str, body: bytes, random_model: Running) -> None:
    answer = random_model.client.post(path, content=body, headers={"Content-Type": "application/json"})
    # No model for embeddings is behind this: it says so, in words.
    assert answer.status_code == (400 if "embeddings" in path else 200), answer.text
    if b"echo" in body:
        assert answer.json()["choices"][0]["text"].startswith("\ufffdabc")


def test_only_halves_are_replaced() -> None:
    whole = {"a": ["x", {"\U0001f600": "\U0001f600\u4f60"}], "b": [1, 2.5, None, True], "c": 3}
    assert whole_characters(whole) == whole
    halves = {"\ud83d": ["\ude00\ud83d", [["\ud83d\u00e9"]]], "ok": "\U0001f600"}
    assert whole_characters(halves) == {"\ufffd": ["\ufffd\ufffd", [["\ufffd\u00e9"]]], "ok": "\U0001f600"}


@pytest.mark.parametrize("name", ["self", "source", "template", "variables", "loop", "add_generation_prompt"])
def test_template_variables_may_have_any_name_but_the_requests_own(name: str, random_model: Running) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "chat_template_kwargs": {name: 1}}
    assert random_model.client.post("/v1/chat/completions", json=body).is_success
    for own in ("messages", "tools"):
        refused = random_model.client.post("/v1/chat/completions", json=body | {"chat_template_kwargs": {own: []}})
        assert refused.status_code == 400 and f"{own} cannot be given here" in refused.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion"])
def test_biases_have_bounds_and_hold_nobody_up(
    path: str, random_model: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[bool] = []
    bias = SamplingBody.bias

    def seen(body: SamplingBody, tokenizer: Tokenizer) -> dict[int, float]:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            loops.append(True)
        loops.append(False)
        return bias(body, tokenizer)

    monkeypatch.setattr(SamplingBody, "bias", seen)
    asked = {"messages": [{"role": "user", "content": "x"}]} if "chat" in path else {"prompt": "x"}

    def status(biases: Any) -> int:
        body = {**asked, "max_tokens": 1, "logit_bias": biases}
        answer = random_model.client.post(path, json=body)
        assert len(answer.text) < 2000
        return answer.status_code

    assert status({"a" * 256: 1}) == 200 and loops == [False]
    many = [[f"{at} x", 1] for at in range(4097)]
    assert status(many[:-1]) == 200
    for wrong in ({"a" * 257: 1}, [["a" * 257, 1]], many, dict(many)):
        assert status(wrong) == 400
    assert loops == [False, False]
