"""llama.cpp's own API, and what its clients send elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from seventy.server.guard import Rules
from seventy.server.request_log import RequestLog
from seventy.text import grammar
from tests.server.conftest import Running, serving


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


def test_probabilities_that_tokens_are_drawn_with(random_model: Running) -> None:
    wish: dict[str, Any] = {"prompt": "ab", "n_predict": 4, "ignore_eos": True, "n_probs": 5, "seed": 3}
    wish |= {"temperature": 2, "top_k": 4, "top_p": 1, "min_p": 0, "post_sampling_probs": True, "return_tokens": True}
    whole = ask(random_model, **wish)
    for token, found in zip(whole["tokens"], whole["completion_probabilities"], strict=True):
        tops = {top["id"]: top["prob"] for top in found["top_probs"]}
        assert len(tops) == 4 and sum(tops.values()) == pytest.approx(1)
        assert found["id"] == token and found["prob"] == pytest.approx(tops[token])
        assert "logprob" not in found and "bytes" in found
    text = random_model.client.post("/completion", json=wish | {"stream": True}).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    streamed = [one for event in events for one in event.get("completion_probabilities", ())]
    assert streamed == whole["completion_probabilities"]
    greedy = ask(random_model, **wish | {"temperature": 0})["completion_probabilities"]
    assert all(one["prob"] == 1 and len(one["top_probs"]) == 1 for one in greedy)


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


def test_infill(random_model: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = random_model.client.post("/infill", json={"input_prefix": "a", "input_suffix": "b"})
    assert refused.status_code == 501 and "does not fill in the middle" in refused.json()["error"]["message"]
    llm = random_model.backend.llm
    marks = {"fim_pre": 33, "fim_suf": 44, "fim_mid": 55}
    monkeypatch.setattr(llm.tokenizer, "_fill_in_the_middle", marks)
    for file in ({"filename": "ok"}, {"filename": 1, "text": "x"}):
        body = {"input_prefix": "a", "input_suffix": "b", "input_extra": [file]}
        assert random_model.client.post("/infill", json=body).status_code == 400
    # As editors send it.
    body = {"input_prefix": "ab", "prompt": "c", "input_suffix": "d", "samplers": ["top_k", "infill"], "n_predict": 4,
            "cache_prompt": True, "t_max_prompt_ms": 500, "t_max_predict_ms": 1000, "ignore_eos": True}  # fmt: skip
    answer = ask(random_model, "/infill", **body, input_extra=[{"filename": "f", "text": "x"}])
    assert answer["tokens_predicted"] == 4 and answer["content"]
    assert ask(random_model, "/infill", **body | {"n_predict": 0})["content"] == ""
    ids = llm.infill_ids("abc", "d", [("f", "x")])
    assert ids[-6:] == [33, *llm.tokenize("abc"), 44, *llm.tokenize("d"), 55]
    monkeypatch.setattr(llm.tokenizer, "_fill_in_the_middle", marks | {"fim_rep": 66, "fim_sep": 77})
    ids = llm.infill_ids("abc", "d", [("f", "x")])
    files = [66, *llm.tokenize("project\n"), 77, *llm.tokenize("f\nx\n"), 77, *llm.tokenize("file\n")]
    assert ids[-len(files) - 6 : -6] == files


def test_an_answer_ends_where_a_line_is_less_indented(random_model: Running) -> None:
    body = {"prompt": "x", "grammar": 'root ::= "a\\n  b\\n\\n   c\\n d"', "n_predict": 40}
    assert ask(random_model, "/completion", **body, n_indent=1)["content"] == "a\n  b\n\n   c\n d"
    ended = ask(random_model, "/completion", **body, n_indent=2)
    assert ended["content"] == "a\n  b\n\n   c" and ended["stop_type"] == "limit"


def test_times_in_each_chunk(random_model: Running) -> None:
    few: dict[str, Any] = {"max_tokens": 4, "ignore_eos": True, "stream": True, "timings_per_token": True}
    for path, body in (
        ("/completion", {"prompt": "ab"}), ("/v1/completions", {"prompt": "ab"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "ab"}]}),
        ("/v1/responses", {"input": "ab", "max_output_tokens": 4}),
    ):  # fmt: skip
        text = random_model.client.post(path, json=body | few).text
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        told = [one["timings"] for one in events if "timings" in one]
        assert told and told[-1]["predicted_n"] >= told[0]["predicted_n"] >= 0, path
        # Of a chat the first says the role only.
        assert ("timings" in events[0]) != ("chat" in path) or "responses" in path
        assert any(one["predicted_n"] and one["prompt_n"] + one["cache_n"] for one in told), path
        plain = random_model.client.post(path, json=body | few | {"timings_per_token": False}).text
        assert plain.count('"timings"') < len(told), path


def test_requests_are_logged_without_their_text(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "seventy.requests")
    with serving(tiny, rules=Rules({"anna": "a"}), around=RequestLog) as server:
        server.wait()
        key = {"Authorization": "Bearer a"}
        body = {"messages": [{"role": "user", "content": "XYZZY"}], "max_tokens": 4, "ignore_eos": True, "stream": True}
        server.client.post("/v1/chat/completions", json=body, headers=key)
        server.client.get("/no%0Anews", headers=key)
        server.client.get("/v1/models?q=XYZZY")
    chat, missing, refused = caplog.messages
    assert re.fullmatch(
        r"anna POST /v1/chat/completions 200 [\d.]+ s prompt \d+ cached 0 written 4 queued [\d.]+ read [\d.]+ wrote "
        r"[\d.]+", chat,
    )  # fmt: skip
    assert missing.startswith("anna GET /no%0Anews 404") and refused.startswith("127.0.0.1 GET /v1/models 401")
    assert "XYZZY" not in caplog.text
