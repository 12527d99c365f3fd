"""llama.cpp's own API, and what its clients send elsewhere."""

import json
from typing import Any

import pytest

from seventy.text import grammar
from tests.server.conftest import Running


def ask(server: Running, path: str = "/completion", **body: Any) -> Any:
    response = server.client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_an_answer_and_its_stream(random_model: Running) -> None:
    wish: dict[str, Any] = {"prompt": "ab", "n_predict": 5, "temperature": 0, "ignore_eos": True}
    whole = ask(random_model, **wish, n_probs=3, return_tokens=True)
    assert whole["stop_type"] == "limit" and whole["tokens_predicted"] == len(whole["tokens"]) == 5
    assert whole["prompt"] == "ab" and whole["generation_settings"]["n_predict"] == 5
    assert [one["id"] for one in whole["completion_probabilities"]] == whole["tokens"]
    assert all(len(one["top_logprobs"]) == 3 for one in whole["completion_probabilities"])
    text = random_model.client.post("/completion", json=wish | {"stream": True}).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert "".join(one["content"] for one in events) == whole["content"] and events[-1]["stop"]
    assert [token for one in events for token in one["tokens"]] == whole["tokens"]
    stop = whole["content"][1:2]
    if stop and stop.isascii():
        ended = ask(random_model, **wish, stop=[stop])
        assert ended["stop_type"] == "word" and ended["stopping_word"] == stop
    some = ask(random_model, **wish, response_fields=["content", "generation_settings/n_predict", "nothing"])
    assert some == {"content": whole["content"], "generation_settings/n_predict": 5}


def test_prompts_of_texts_and_ids(random_model: Running) -> None:
    few: dict[str, Any] = {"n_predict": 2, "temperature": 0, "ignore_eos": True}
    ids = ask(random_model, "/tokenize", content="xyab")["tokens"]
    alone = ask(random_model, prompt="xyab", **few)["content"]
    assert ask(random_model, prompt=[*ids[:2], "ab"], **few)["content"] == alone
    several = ask(random_model, prompt=["xyab", ids, {"prompt_string": "xyab"}], **few)
    assert [one["content"] for one in several] == [alone] * 3
    for wrong in (None, [], {}, [[]], [1.5], {"prompt_string": "x", "multimodal_data": ["x"]}, [True], 7):
        assert random_model.client.post("/completion", json={"prompt": wrong, **few}).status_code == 400, wrong


def test_biases_in_every_form(random_model: Running) -> None:
    few: dict[str, Any] = {"prompt": "ab", "n_predict": 8, "temperature": 0, "ignore_eos": True}
    token = ask(random_model, **few, return_tokens=True)["tokens"][0]
    text = ask(random_model, "/detokenize", tokens=[token])["content"]
    biases: list[Any] = [{str(token): -100}, [[token, False]], {str(token): False}]
    for bias in [*biases, *([[[text, -100]]] if text.isascii() and text else [])]:
        assert token not in ask(random_model, **few, logit_bias=bias, return_tokens=True)["tokens"][:1], bias
    for wrong in ([[1]], {"99999999": 1}, {"1": -101}, {"1": 101}):
        assert random_model.client.post("/completion", json={**few, "logit_bias": wrong}).status_code == 400, wrong


def test_what_clients_read(random_model: Running) -> None:
    get = random_model.client.get
    props, slots = get("/props").json(), get("/slots").json()
    assert props["total_slots"] == len(slots) == 4 and props["default_generation_settings"]["n_ctx"] == 512
    assert "messages" in props["chat_template"] and not any(slot["is_processing"] for slot in slots)
    hello = {"messages": [{"role": "user", "content": "Hello"}]}
    assert ask(random_model, "/v1/chat/completions/input_tokens", **hello)["input_tokens"] > 5
    pieces = ask(random_model, "/tokenize", content="abé", with_pieces=True)["tokens"]
    assert pieces[0]["piece"] == "ab" and pieces[1]["piece"] == [0xC3]
    for path in ("/", "/api/tags", "/v1/models", "/health"):
        head = random_model.client.head(path)
        assert head.status_code == 200 and not head.content


def test_what_is_not_here_says_what_is(random_model: Running) -> None:
    anthropic = random_model.client.post("/v1/messages/batches", json={})
    assert anthropic.status_code == 404 and anthropic.json()["type"] == "error"
    assert "/v1/chat/completions" in anthropic.json()["error"]["message"]
    assert "seventy pull" in random_model.client.post("/api/push", json={}).json()["error"]
    long = random_model.client.post("/v1/completions", json={"prompt": "x y " * 400}).json()["error"]
    assert long["code"] == "context_length_exceeded" and long["n_prompt_tokens"] > long["n_ctx"] == 512


def test_a_slow_mask_is_waited_for_by_its_own_answer_only(
    random_model: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish: dict[str, Any] = {"prompt": "x", "n_predict": 30, "temperature": 0, "json_schema": {"enum": ["one", 2]}}
    quick = ask(random_model, **wish)
    monkeypatch.setattr(grammar, "_SLOW_SECONDS", -1.0)
    slow = ask(random_model, **wish)
    assert slow["content"] == quick["content"] and slow["stop_type"] == quick["stop_type"]
    random_model.idle()
