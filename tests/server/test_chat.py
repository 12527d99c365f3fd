import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seventy import LLM
from seventy.server import embeddings, vectors
from seventy.server.backend import Backend
from seventy.server.pool import ModelPool
from seventy.server.served import ServedModel
from seventy.text.chat import Prompt
from tests.server.conftest import Loads, Running, running, serving

GREEDY = {"temperature": 0, "ignore_eos": True, "max_tokens": 12}


def events(server: Running, path: str = "/v1/chat/completions", **body: Any) -> list[dict[str, Any]]:
    with server.client.stream("POST", path, json={"stream": True, **body}) as response:
        assert response.status_code == 200, response.read()
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def said(chunks: list[dict[str, Any]], index: int = 0) -> str:
    deltas = [c["delta"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)


HELLO = [{"role": "user", "content": "Hello"}]


def test_a_stream_says_what_the_whole_answer_says(random_model: Running) -> None:
    whole = random_model.chat("Hello", **GREEDY)
    chunks = events(random_model, messages=HELLO, **GREEDY, stream_options={"include_usage": True})
    assert said(chunks) == whole["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 12
    assert all("usage" not in chunk for chunk in chunks[:-1])
    # The same text by the engine alone.
    llm = random_model.backend.llm
    assert whole["usage"]["prompt_tokens"] == len(llm.prompt_ids(HELLO))


def test_several_choices_differ_and_are_repeated_by_their_seed(random_model: Running) -> None:
    options = {"n": 3, "seed": 5, "temperature": 5, "top_k": 0, "top_p": 1, "min_p": 0, "max_tokens": 20}
    first, second = (random_model.chat("Hello", **options) for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert len(set(texts)) == 3
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2]
    chunks = events(random_model, messages=HELLO, **options)
    assert [said(chunks, index) for index in range(3)] == texts


def test_stop_strings_bias_and_limits(random_model: Running) -> None:
    plain = random_model.chat("Hello", **{**GREEDY, "max_tokens": 40})["choices"][0]["message"]["content"]
    stopped = random_model.chat("Hello", **{**GREEDY, "max_tokens": 40}, stop=[plain[5:7]])["choices"][0]
    assert stopped["message"]["content"] == plain[: plain.index(plain[5:7])]
    assert stopped["finish_reason"] == "stop"
    biased = random_model.chat("Hello", **GREEDY, logit_bias={"65": 100})
    assert biased["choices"][0]["message"]["content"] == random_model.backend.llm.detokenize([65] * 12)
    limited = random_model.chat("Hello", temperature=0, ignore_eos=True, max_completion_tokens=3)
    assert limited["usage"]["completion_tokens"] == 3


def test_logprobs_belong_to_the_tokens(random_model: Running) -> None:
    choice = random_model.chat("Hello", **GREEDY, logprobs=True, top_logprobs=4)["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == 12
    data = bytes(b for entry in content for b in entry["bytes"])
    assert data.decode("utf-8", "replace") == choice["message"]["content"]
    for entry in content:
        assert entry["logprob"] == max(top["logprob"] for top in entry["top_logprobs"]) <= 0
        assert len(entry["top_logprobs"]) == 4
    chunks = events(random_model, messages=HELLO, **GREEDY, logprobs=True)
    found = [entry for chunk in chunks for c in chunk["choices"] for entry in c["logprobs"]["content"]]
    assert [entry["logprob"] for entry in found] == [entry["logprob"] for entry in content]


def test_progress_of_the_prompt_is_told(random_model: Running) -> None:
    long = [{"role": "user", "content": "x" * 300}]
    chunks = events(random_model, messages=long, max_tokens=1, return_progress=True)
    progress = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert len(progress) >= 2
    assert [p["processed"] for p in progress] == sorted(p["processed"] for p in progress)
    assert progress[-1]["processed"] == progress[-1]["total"] > 300
    assert progress[0]["processed"] == progress[0]["cache"] < 300
    # What fits into one step has a beginning, too; the second time all but the last token is in the cache.
    for _ in range(2):
        chunks = events(random_model, messages=HELLO, max_tokens=1, return_progress=True)
        first, last = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        assert first["processed"] == first["cache"] < last["processed"] == last["total"]


def test_the_second_turn_reads_only_what_is_new(random_model: Running) -> None:
    conversation = [{"role": "user", "content": "y" * 200}]
    first = random_model.chat(conversation, **GREEDY, logit_bias={"65": 100})
    conversation += [first["choices"][0]["message"], {"role": "user", "content": "more"}]
    second = random_model.chat(conversation, **GREEDY)
    details = second["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] >= first["usage"]["total_tokens"] - 1


def test_content_in_parts_and_developer_messages(random_model: Running) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]
    assert random_model.chat(parts, **GREEDY)["choices"] == random_model.chat("Hello", **GREEDY)["choices"]
    roles = [
        random_model.chat([{"role": role, "content": "Be brief"}, *HELLO], **GREEDY)["choices"]
        for role in ("developer", "system")
    ]
    assert roles[0] == roles[1]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "messages: Field required"),
        ({"messages": []}, 400, "at least 1 item"),
        ({"messages": HELLO, "temperature": "hot"}, 400, "temperature"),
        ({"messages": HELLO, "n": 0}, 400, "n: "),
        ({"messages": [{"role": "user", "content": "z" * 3000}]}, 400, "the context of 512 has no room"),
        ({"messages": HELLO, "logit_bias": {"x": "much"}}, 400, "logit_bias.x: "),
        ({"messages": HELLO, "logit_bias": {"999": 1}}, 400, "token 999 is not in the vocabulary"),
        ({"messages": HELLO, "top_logprobs": 3}, 400, "needs logprobs"),
        ({"messages": HELLO, "response_format": {"type": "json_schema"}}, 400, "needs the field json_schema"),
        ({"messages": HELLO, "regex": "(["}, 400, "the regular expression cannot be used"),
        ({"messages": HELLO, "tool_choice": "required"}, 400, "there are no tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "reads text only"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_openais_shape(
    random_model: Running, body: dict[str, Any], status: int, said: str
) -> None:
    response = random_model.client.post("/v1/chat/completions", json=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"} and said in error["message"]
    # What does not fit has llama.cpp's type, beside OpenAI's code.
    fits = error["code"] != "context_length_exceeded"
    assert error["type"] == ("invalid_request_error" if fits else "exceed_context_size_error")


def test_completions_go_on_as_they_are(random_model: Running) -> None:
    def ask(**body: Any) -> dict[str, Any]:
        response = random_model.client.post("/v1/completions", json={"temperature": 0, "ignore_eos": True, **body})
        assert response.status_code == 200, response.text
        return response.json()

    llm = random_model.backend.llm
    one = ask(prompt="Hello", max_tokens=10, logprobs=2)
    ids = llm.tokenize("Hello")
    assert ask(prompt=ids, max_tokens=10)["choices"][0]["text"] == one["choices"][0]["text"]
    assert len(one["choices"][0]["logprobs"]["tokens"]) == 10
    assert one["usage"]["prompt_tokens"] == len(ids)
    many = ask(prompt=["Hello", "World"], n=2, max_tokens=5, echo=True)
    assert [choice["index"] for choice in many["choices"]] == [0, 1, 2, 3]
    assert [choice["text"][:5] for choice in many["choices"]] == ["Hello", "Hello", "World", "World"]
    assert many["usage"]["completion_tokens"] == 20
    chunks = events(random_model, "/v1/completions", prompt="Hello", max_tokens=10, temperature=0, ignore_eos=True)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == one["choices"][0]["text"]


def test_editors_ask_for_what_stands_between(random_model: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    client, llm, asked = random_model.client, random_model.backend.llm, list[list[int]]()
    submit = random_model.backend.scheduler.submit

    def seen(request: Any) -> None:
        asked.append(request.ids)
        submit(request)

    monkeypatch.setattr(random_model.backend.scheduler, "submit", seen)
    wish = {"prompt": "one", "max_tokens": 4, "temperature": 0}
    options = {"raw": True, "stream": False, "options": {"num_predict": 4, "temperature": 0}}
    refused = client.post("/v1/completions", json=wish | {"suffix": "three"})
    assert refused.status_code == 400 and "does not fill in the middle" in refused.json()["error"]["message"]
    marks = {"fim_pre": 33, "fim_suf": 44, "fim_mid": 55}
    monkeypatch.setattr(llm.tokenizer, "_fill_in_the_middle", marks)
    for after in ({}, {"suffix": "three<|end|>"}):
        text = client.post("/v1/completions", json=wish | after).json()["choices"][0]["text"]
        assert client.post("/api/generate", json={"prompt": "one", **after, **options}).json()["response"] == text
    one, three = llm.tokenize("one"), llm.tokenize("three<|end|>")
    assert asked == [one, one, *[[33, *one, 44, *three, 55]] * 2]
    ids = client.post("/v1/completions", json=wish | {"prompt": [1], "suffix": "three"})
    assert ids.status_code == 400 and ids.json()["error"]["param"] == "suffix"


def test_tokens_models_and_numbers(random_model: Running) -> None:
    client = random_model.client
    tokens = client.post("/tokenize", json={"content": "ab<|end|>"}).json()
    assert tokens == {"tokens": [258, 257], "count": 2}
    assert client.post("/detokenize", json={"tokens": [258]}).json() == {"content": "ab"}
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json()["context_length"] == 512
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/health").json() == {"status": "ok"}
    random_model.chat(**GREEDY)
    metrics = client.get("/metrics").text
    for name in ("generated_tokens_total", "prefix_hit_tokens_total", "kv_pages_used", "request_seconds_count"):
        assert f"\nseventy_{name}" in metrics
    assert client.get("/status").json()["context"] == 512


def test_models_not_made_for_embeddings_say_so(random_model: Running) -> None:
    response = random_model.client.post("/v1/embeddings", json={"input": "text"})
    assert response.status_code == 400
    assert "is not made for embeddings" in response.json()["error"]["message"]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embeddings_of_a_model_started_for_them(tiny: Path, pooling: str) -> None:
    with serving(tiny, pooling=pooling) as server:
        server.wait()

        def ask(**body: Any) -> list[Any]:
            response = server.client.post("/v1/embeddings", json=body)
            assert response.status_code == 200, response.text
            return [item["embedding"] for item in response.json()["data"]]

        texts = ["a first text", "b" * 300, "a first text"]
        together = ask(input=texts)
        assert together[0] == together[2] != together[1]
        assert together == [ask(input=text)[0] for text in texts]
        assert sum(x * x for x in together[1]) == pytest.approx(1)
        (encoded,) = ask(input="a first text", encoding_format="base64")
        assert np.frombuffer(base64.b64decode(encoded), np.float32).tolist() == pytest.approx(together[0])
        assert len(ask(input=[1, 2, 3], dimensions=5)[0]) == 5
        # As llama.cpp takes prompts.
        parts = {"content": [{"type": "text", "text": "a first "}, {"type": "text", "text": "text"}]}
        assert ask(input=[{"prompt_string": "a first text"}, parts]) == together[:1] * 2
        assert len(ask(input=[12, "b", 34])) == 1 and len(ask(input=[[12, "b"], "c", [1, 2]])) == 3
        for wrong in ([], {"content": "x"}, {"content": [{"type": "image_url"}]}, 7, [True]):
            refused = server.client.post("/v1/embeddings", json={"input": wrong})
            assert refused.status_code == 400 and "input" in refused.json()["error"]["param"], wrong
        # No text at all is a text, too; more of them than may wait at once.
        assert len(ask(input="")[0]) == 256 and ask(input=["a first text"] * 100) == together[:1] * 100
        large = server.client.post("/v1/embeddings", json={"input": "This is a test " * 512})
        assert large.status_code == 400 and "too large" in large.json()["error"]["message"]
        (one,) = server.client.post("/embedding", json={"input": "a first text"}).json()
        assert one == {"index": 0, "embedding": together[:1]}
        server.idle()


def test_one_text_that_is_too_long_costs_nothing(tiny: Path) -> None:
    with serving(tiny, pooling="mean") as server:
        server.wait()
        statistics = server.backend.scheduler.statistics
        for wrong, said in (("x" * 513, "text 2047 is too large: 513 tokens"), ([1] * 600, "text 2047 is too large")):
            refused = server.client.post("/v1/embeddings", json={"input": [*["a"] * 2047, wrong]})
            assert refused.status_code == 400 and said in refused.json()["error"]["message"]
        assert statistics.requests == 0
        server.idle()


def test_embeddings_of_a_request_are_one_models(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the default is deleted meanwhile, no other goes on in its place."""
    models, ids = [ServedModel(name, tiny) for name in "ab"], embeddings._ids
    with running(ModelPool(models, Loads(512, 4, 64), pooling="mean")) as server:
        server.wait()

        def deleting(backend: Backend, parts: list[int | str], at: int) -> list[int]:
            if at == 2:
                server.pool.remove(models[0])
            return ids(backend, parts, at)

        monkeypatch.setattr(embeddings, "_ids", deleting)
        refused = server.client.post("/v1/embeddings", json={"input": list("abcd")})
        assert refused.status_code == 404, refused.text


def test_embeddings_of_each_token(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny, pooling="none") as server:
        server.wait()
        with monkeypatch.context() as patch:
            patch.setattr(vectors, "_MOST_NUMBERS", 256 * 500)
            many = server.client.post("/embedding", json={"input": ["x" * 300, "x" * 201]})
            assert many.status_code == 400 and "501 tokens and more" in many.json()["error"]["message"]
        refused = server.client.post("/v1/embeddings", json={"input": "abc"})
        assert refused.status_code == 400 and "/embedding" in refused.json()["error"]["message"]
        texts = ["xyz", "x" * 300, "xyz"]
        for where in ("/embedding", "/embeddings"):
            found = server.client.post(where, json={"input": texts}).json()
            assert [len(one["embedding"]) for one in found] == [3, 300, 3]
            assert found[0]["embedding"] == found[2]["embedding"]
            assert found[0]["embedding"][0] == pytest.approx(found[1]["embedding"][0], abs=1e-4)
            assert abs(sum(x * x for x in found[0]["embedding"][0]) - 1) > 0.01
        server.idle()


LLAMA3 = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}"
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{% endfor %}\n{% endfor %}'
    '{% if tools %}{{ tools | tojson }} Answer by {"name": function, "parameters": object}{% endif %}'
)


def test_calls_in_the_style_of_llama_3(tiny: Path) -> None:
    def load(progress: Any) -> LLM:
        return LLM(tiny, threads=2, context=1500, sequences=4, chat_template=LLAMA3)

    parameters = {
        "type": "object", "properties": {"x": {"type": "integer", "maximum": 999, "minimum": 0}}, "required": ["x"],
        "additionalProperties": False,
    }  # fmt: skip
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("add", "mul")]
    with serving(tiny, load=load) as server:
        server.wait()
        choice = server.chat("1+1", tools=tools, tool_choice="required", parallel_tool_calls=False)["choices"][0]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] in ("add", "mul") and "x" in json.loads(call["function"]["arguments"])
        # Several calls of one message, and their answers, go back to a template that takes one at a time.
        calls = [{**call, "id": str(i)} for i in range(2)]
        answers = [{"role": "tool", "tool_call_id": str(i), "content": str(i)} for i in range(2)]
        assistant = {"role": "assistant", "content": None, "tool_calls": calls}
        server.chat([*HELLO, assistant, *answers], tools=tools, max_tokens=3)


MISTRAL = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' and loop.index0 % 2 %}{{ raise_exception('turns') }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ raise_exception('nine') if c.id | length != 9 }}"
    "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}"
    "{% if m.role == 'tool' %}{{ raise_exception('nine') if m.tool_call_id | length != 9 }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)


def test_a_loop_of_tools_with_a_strict_template(tiny: Path) -> None:
    """Turns, ids of nine letters, calls in a style of its own: the server's own answer goes back to it."""
    one = {"type": "object", "properties": {"x": {"enum": [1]}}, "required": ["x"], "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "add", "parameters": one}}]

    def load(progress: Any) -> LLM:
        return LLM(tiny, threads=2, context=1500, sequences=4, chat_template=MISTRAL)

    with serving(tiny, load=load) as server:
        server.wait()
        whole = server.chat("1+1", tools=tools, tool_choice="required", parallel_tool_calls=False)["choices"][0]
        (call,) = whole["message"]["tool_calls"]
        assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"x": 1})
        assert whole["message"]["content"] is None and whole["finish_reason"] == "tool_calls"
        wish = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
        deltas = [c["choices"][0]["delta"] for c in events(server, messages=HELLO, **wish)]
        assert "".join(d["tool_calls"][0]["function"]["arguments"] for d in deltas if "tool_calls" in d)
        assert not any(delta.get("content") for delta in deltas)
        back = {"role": "tool", "tool_call_id": call["id"], "content": "2"}
        server.chat([*HELLO, whole["message"], back], tools=tools, max_tokens=1)
        cut = server.chat("1+1", tools=tools, grammar='start: "[TOOL_CALLS]add[ARGS]{" /[^}]+/', max_tokens=40)
        assert cut["choices"][0]["message"]["content"] == "" and cut["choices"][0]["finish_reason"] == "length"
        # A system message, where there is no such role, and a system message late.
        system = {"role": "system", "content": "XYZZY"}
        body = {"messages": [system, *HELLO, system, *HELLO]}
        answer = server.client.post("/apply-template", json=body)
        assert answer.json()["prompt"].count("XYZZY") == 2, answer.text


def test_thinking_comes_apart(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny) as server:
        server.wait()
        chat = server.backend.llm.chat_format
        monkeypatch.setattr(chat, "prompt", lambda *args: Prompt("question <think>\n", ()))
        choice = server.chat("x", regex="(hm+)</think>\n\nyes", max_tokens=30)["choices"][0]
        # A form was asked for: the thinking is closed in the prompt, and all that is written is the answer.
        assert "reasoning_content" not in choice["message"]
        monkeypatch.setattr(chat, "prompt", lambda *args: Prompt("question", ()))
        grammar = 'start: "<think>so</think>\\n\\nyes"'
        message = server.chat("x", grammar=grammar)["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("so", "yes")
        chunks = events(server, messages=HELLO, grammar=grammar)
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "so"
        assert said(chunks) == "yes"
