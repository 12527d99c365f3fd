"""The server as clients of OpenAI's API, and of Ollama's, use it."""

import asyncio
import gc
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from tests.server.conftest import Running

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["kind", "tall", "old"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(small_model: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{small_model.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat_and_stream(client: openai.OpenAI, small_model: Running) -> None:
    options: Any = {"model": small_model.model, "messages": HELLO, "temperature": 0, "max_tokens": 20}
    whole = client.chat.completions.create(**options)
    text = whole.choices[0].message.content
    assert text and whole.usage and whole.usage.completion_tokens <= 20
    pieces, usage = "", None
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        pieces += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert pieces == text
    assert usage and usage.total_tokens == whole.usage.total_tokens
    assert usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    assert [model.id for model in client.models.list()] == [small_model.model]
    completion = client.completions.create(model="any", prompt="The capital of France is", max_tokens=4, temperature=0)
    assert "Paris" in completion.choices[0].text


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="any", messages=HELLO, max_tokens=5, temperature=0, logprobs=True, top_logprobs=5
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.content and len(logprobs.content) == 5
    assert all(len(token.top_logprobs) == 5 for token in logprobs.content)
    assert logprobs.content[0].logprob == logprobs.content[0].top_logprobs[0].logprob


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="the context of 2048 has no room") as error:
        client.completions.create(model="any", prompt=[1] * 2048)
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.BadRequestError, match="not made for embeddings"):
        client.embeddings.create(model="any", input="text")
    bad: Any = [{"role": "king", "content": "x"}]
    with pytest.raises(openai.BadRequestError, match="role"):
        client.chat.completions.create(model="any", messages=bad)


def test_forced_tools(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        answer = client.chat.completions.create(
            model="any", messages=asked, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False, max_tokens=80
        ).choices[0]  # type: ignore[call-overload]
        assert answer.finish_reason == "tool_calls"
        (call,) = answer.message.tool_calls
        assert call.function.name == "get_weather" and call.id
        jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])
    # The answer of the tool goes back.
    asked += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": "12 C, rain"}]
    final = client.chat.completions.create(model="any", messages=asked, tools=[WEATHER], max_tokens=30)
    assert final.choices[0].finish_reason in ("stop", "length", "tool_calls")


def test_tools_in_a_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "Weather in Rome and in Oslo?"}], tools=[WEATHER],
        tool_choice="required", stream=True, max_tokens=200, temperature=0,
    )  # fmt: skip
    calls: dict[int, list[str]] = {}
    pieces = 0
    for chunk in stream:
        for delta in chunk.choices[0].delta.tool_calls or ():
            assert delta.function
            if delta.id:
                calls[delta.index] = [delta.function.name or "", ""]
            calls[delta.index][1] += delta.function.arguments or ""
            pieces += 1
        assert not chunk.choices[0].delta.content
    assert pieces > 3 and sorted(calls) == list(range(len(calls)))
    for name, arguments in list(calls.values())[: len(calls) - 1] or calls.values():
        assert name == "get_weather"
        jsonschema.validate(json.loads(arguments), WEATHER["function"]["parameters"])


def test_no_tools_when_none_are_wanted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="any", messages=HELLO, tools=[WEATHER], tool_choice="none", max_tokens=5
    )
    assert answer.choices[0].message.tool_calls is None


def test_a_hundred_answers_by_a_schema(client: openai.OpenAI) -> None:
    cut = 0
    for first in range(0, 100, 10):
        answer = client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "Describe a person as JSON."}], n=10, seed=first,
            temperature=1.2, max_tokens=60,
            response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
        )  # fmt: skip
        for choice in answer.choices:
            if choice.finish_reason == "length":
                cut += 1
                continue
            jsonschema.validate(json.loads(choice.message.content or ""), PERSON)
    print(f"100 answers, {cut} cut by max_tokens, the others valid")
    assert cut < 50


def test_other_forms(client: openai.OpenAI, small_model: Running) -> None:
    class Pair(BaseModel):
        left: int
        right: bool

    options: Any = {"response_format": Pair, "max_tokens": 40, "temperature": 0}
    parsed = client.chat.completions.parse(model="any", messages=HELLO, **options)
    assert isinstance(parsed.choices[0].message.parsed, Pair)
    anything = small_model.chat("A JSON object of two keys.", response_format={"type": "json_object"}, max_tokens=200)
    if anything["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(anything["choices"][0]["message"]["content"]), dict)
    number = small_model.chat("A phone number", regex=r"\+49 \d{3} \d{5}", max_tokens=40)
    assert len(number["choices"][0]["message"]["content"]) == 13
    answer = small_model.chat("Yes or no?", grammar='root ::= "yes" | "no"')
    assert answer["choices"][0]["message"]["content"] in ("yes", "no")


@pytest.fixture
def untidy() -> Iterator[None]:
    """For clients that leave event loops and sockets open: these go here, not in the middle of another test."""
    yield
    asyncio.set_event_loop(None)
    gc.collect()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("untidy")
def test_litellm(small_model: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its prices, which it else fetches when it is imported.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    options = {
        "model": f"openai/{small_model.model}", "api_base": f"{small_model.url}/v1", "api_key": "none",
        "messages": HELLO, "max_tokens": 10, "temperature": 0,
    }  # fmt: skip
    whole = litellm.completion(**options)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**options, stream=True))
    assert whole.choices[0].message.content == text != ""
    ollama = litellm.completion(
        **options | {"model": f"ollama_chat/{small_model.model}", "api_base": small_model.url}
    )
    assert ollama.choices[0].message.content == text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("untidy")
def test_langchain(small_model: Running) -> None:
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(
        base_url=f"{small_model.url}/v1", api_key="none", model=small_model.model, temperature=0, max_tokens=60
    )
    assert chat.invoke("Say hello.").content == "".join(chunk.content for chunk in chat.stream("Say hello."))
    bound = chat.bind_tools([WEATHER], tool_choice="get_weather")
    assert bound.invoke("Weather in Rome?").tool_calls[0]["name"] == "get_weather"
    person = chat.with_structured_output(PERSON | {"title": "person"}, method="json_schema").invoke("A person.")
    jsonschema.validate(person, PERSON)


def test_ollama(small_model: Running) -> None:
    client, name = small_model.client, small_model.model
    assert [model["name"] for model in client.get("/api/tags").json()["models"]] == [name]
    options = {"temperature": 0, "num_predict": 12}
    body = {"model": f"{name}:latest", "messages": HELLO, "options": options}
    whole = client.post("/api/chat", json={**body, "stream": False}).json()
    assert whole["done"] and whole["eval_count"] <= 12 and whole["message"]["role"] == "assistant"
    with client.stream("POST", "/api/chat", json=body) as response:
        lines = [json.loads(line) for line in response.iter_lines()]
    assert "".join(line["message"]["content"] for line in lines) == whole["message"]["content"]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    generated = client.post("/api/generate", json={"model": name, "prompt": "Say hello.", "options": options})
    text = "".join(json.loads(line)["response"] for line in generated.text.splitlines())
    assert text == whole["message"]["content"]
    formed = client.post("/api/chat", json={**body, "stream": False, "format": PERSON, "options": {"num_predict": 80}})
    if formed.json()["done_reason"] == "stop":
        jsonschema.validate(json.loads(formed.json()["message"]["content"]), PERSON)
    missing = client.post("/api/chat", json={**body, "model": "other"})
    assert missing.status_code == 404 and missing.json()["error"].startswith("model 'other' not found")
    assert client.post("/api/show", json={"model": name}).json()["model_info"]["general.architecture"] == "llama"
    assert client.get("/api/version").json()["version"]
