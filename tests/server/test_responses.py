"""/v1/responses as OpenAI's own client uses it."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from openai.types.responses import response_create_params
from pydantic import BaseModel

from seventy.runtime import memory
from seventy.runtime.memory import KEPT_BYTES
from seventy.runtime.reservations import holders
from seventy.server import response_items, response_store
from seventy.server.errors import ApiError
from seventy.server.fields import REFUSED, WITHOUT_EFFECT
from seventy.server.guard import Rules
from seventy.server.response_store import ResponseStore
from tests.server.conftest import Running, serving
from tests.server.test_clients import WEATHER
from tests.server.test_fields import names
from tests.server.test_thinking import speaking
from tests.support import templates

TOOL: Any = {"type": "function", "strict": True, **WEATHER["function"]}
BRIEF: Any = {"model": "any", "temperature": 0, "max_output_tokens": 12}


@pytest.fixture(scope="module")
def client(small_model: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{small_model.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(server: Running, status: int = 200, **body: Any) -> dict[str, Any]:
    response = server.client.post("/v1/responses", json={"max_output_tokens": 5, "input": "Hello", **body})
    assert response.status_code == status, response.text
    return response.json()


def test_response_and_stream(client: openai.OpenAI, small_model: Running) -> None:
    whole = client.responses.create(**BRIEF, instructions="You are brief.", input="Say hello.", metadata={"a": "b"})
    assert whole.id.startswith("resp_") and whole.output[0].id.startswith("msg_") and whole.output_text
    assert whole.usage and whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    assert whole.metadata == {"a": "b"} and whole.object == "response"
    plain = small_model.chat(
        [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Say hello."}],
        max_tokens=12, temperature=0,
    )  # fmt: skip
    assert plain["choices"][0]["message"]["content"] == whole.output_text
    parts: Any = [{"role": "developer", "content": "You are brief."}, {
        "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say hello."}]}]  # fmt: skip
    text, numbers, kinds = "", [], []
    for event in client.responses.create(**BRIEF, input=parts, stream=True):
        numbers.append(event.sequence_number)
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert numbers == list(range(len(numbers))) and text == whole.output_text == event.response.output_text
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]  # fmt: skip
    assert kinds[-4:-1] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert kinds[-1] == f"response.{event.response.status}"
    if event.response.status == "incomplete":
        assert event.response.incomplete_details.reason == "max_output_tokens"
    counted = small_model.client.post("/v1/responses/input_tokens", json={"input": parts}).json()
    assert counted["input_tokens"] == whole.usage.input_tokens


def test_it_goes_on_from_an_earlier_response(client: openai.OpenAI, small_model: Running) -> None:
    first = client.responses.create(**BRIEF, input="My name is Ada.", instructions="Not repeated.")
    second = client.responses.create(**BRIEF, input="What is my name?", previous_response_id=first.id)
    third = client.responses.create(**BRIEF, input="Sure?", previous_response_id=second.id, store=False)
    asked = ["My name is Ada.", first.output_text, "What is my name?", second.output_text, "Sure?"]
    roles = ["user", "assistant"] * 3
    plain = [{"role": role, "content": text} for role, text in zip(roles, asked, strict=False)]
    answer = small_model.chat(plain, temperature=0, max_tokens=12)["choices"][0]["message"]["content"]
    assert third.output_text == answer and third.previous_response_id == second.id
    again = client.responses.retrieve(second.id)
    assert again.output_text == second.output_text and again.usage == second.usage
    (item,) = client.responses.input_items.list(second.id).data
    assert item.content == "What is my name?"
    client.responses.delete(second.id)
    for gone in (second.id, third.id, "resp_other"):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(gone)
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(**BRIEF, input="And now?", previous_response_id=second.id)
    assert error.value.code == "previous_response_not_found"


def test_tools(client: openai.OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    options: Any = {"model": "any", "max_output_tokens": 80, "tools": [TOOL], "parallel_tool_calls": False}
    for choice in ("required", {"type": "function", "name": "get_weather"},
                   {"type": "allowed_tools", "mode": "required", "tools": [{"name": "get_weather"}]}):  # fmt: skip
        with client.responses.stream(**options, input=asked, tool_choice=choice) as stream:
            pieces = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
            response = stream.get_final_response()
        (call,) = response.output
        assert response.status == "completed" and call.type == "function_call" and call.name == "get_weather"
        assert call.arguments == "".join(pieces) and call.call_id
        jsonschema.validate(json.loads(call.arguments), WEATHER["function"]["parameters"])
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain, 12 C"}
    told = client.responses.create(**options, input=[*asked, call.to_dict(), result])  # type: ignore[list-item]
    same = client.responses.create(**options, input=[result], previous_response_id=response.id)
    assert told.usage.input_tokens == same.usage.input_tokens  # type: ignore[union-attr]
    custom: Any = {"type": "custom", "name": "shell", "description": "Run a command."}
    (call,) = client.responses.create(
        model="any", max_output_tokens=200, input="List files.", tools=[custom], parallel_tool_calls=False,
        tool_choice={"type": "custom", "name": "shell"}, temperature=0,
    ).output  # fmt: skip
    assert call.type == "custom_tool_call" and call.name == "shell" and isinstance(call.input, str)


def test_forms(client: openai.OpenAI) -> None:
    class Person(BaseModel):
        age: int

    parsed = client.responses.parse(model="any", input="A person, 40 years old.", text_format=Person, temperature=0)
    assert isinstance(parsed.output_parsed, Person)
    form: Any = {"format": {"type": "json_object"}}
    free = client.responses.create(model="any", input="A person as JSON.", text=form, max_output_tokens=60)
    assert free.status == "incomplete" or isinstance(json.loads(free.output_text), dict)
    scored = client.responses.create(
        **BRIEF, input="Hello", include=["message.output_text.logprobs"], top_logprobs=2
    )
    logprobs = scored.output[0].content[0].logprobs  # type: ignore[union-attr]
    assert logprobs and len(logprobs) >= 5 and all(len(one.top_logprobs) == 2 for one in logprobs)


def test_items_become_messages() -> None:
    body = response_items.ResponsesBody.model_validate({"input": [
        {"role": "user", "content": "Look"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "ls"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "two"},
    ], "reasoning": {"effort": "low", "summary": "auto"}})  # fmt: skip
    chat = response_items.wish(body, response_items.items_of(body.input))
    said = [message.model_dump(exclude_none=True, exclude_defaults=True) for message in chat.messages]
    assert said == [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [
            {"id": "c1", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": "c2", "function": {"name": "g", "arguments": {"input": "ls"}}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
    ]  # fmt: skip
    assert chat.reasoning_effort == "low"


def test_reasoning(tiny: Path) -> None:
    with speaking(tiny, templates.QWEN35) as (server, prompts):
        said = ask(server, reasoning={"effort": "none"})
        assert prompts[-1].endswith("<think>\n\n</think>\n\n") and said["output"][0]["type"] == "message"
        said = ask(server, reasoning={"effort": "high", "summary": "auto"}, max_output_tokens=9)
        assert [item["type"] for item in said["output"]] == ["reasoning"] and said["status"] == "incomplete"
        assert said["usage"]["output_tokens_details"]["reasoning_tokens"] == 9
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            kinds = [event.type for event in client.responses.create(model="any", input="Hi", max_output_tokens=9,
                                                                     stream=True)]  # fmt: skip
        assert "response.reasoning_text.delta" in kinds and "response.reasoning_text.done" in kinds
    with speaking(tiny, templates.PLAIN) as (server, _):
        response = server.client.post("/v1/responses", json={"input": "Hi", "reasoning": {"effort": "low"}})
        assert response.status_code == 200 and "no thinking" in response.headers["X-Seventy-Changed"]


def test_errors_and_limits(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny, rules=Rules({"anna": "a", "ben": "b"})) as server:
        server.wait()
        anna, ben = ({"Authorization": f"Bearer {key}"} for key in "ab")
        server.client.headers.update(anna)
        for body, said in (
            ({"background": True}, "background is not supported"),
            ({"conversation": "conv_1"}, "previous_response_id"),
            ({"tool_choice": {"type": "web_search"}}, "web_search"),
            ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]}, "no images"),
            ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
            ({"input": []}, "give a text"),
            ({"tool_choice": "maybe"}, "tool_choice"),
            ({"input": "x y " * 600}, "no room"),
        ):
            error = ask(server, 400, **body)["error"]
            assert said in error["message"], body
        turns = [{"role": role, "content": "x y " * 40} for role in ("user", "assistant") * 3]
        ask(server, 400, input=[*turns, *turns[:1]])
        assert ask(server, input=[*turns, *turns[:1]], truncation="auto")["usage"]["input_tokens"] < 512
        # Agents offer what OpenAI runs with every request.
        tools = [{"type": "web_search"}, {"type": "namespace", "name": "x"}]
        body = {"input": "Hi", "max_output_tokens": 5, "tools": tools}
        response = server.client.post("/v1/responses", json=body)
        assert response.status_code == 200 and "'web_search' are not here" in response.headers["X-Seventy-Changed"]
        # Nobody goes on from another's response, nor reads it.
        id = ask(server)["id"]
        assert server.client.get(f"/v1/responses/{id}", headers=ben).status_code == 404
        assert server.client.get(f"/v1/responses/{id}").status_code == 200
        # One user's fill only that user's room, the oldest go first.
        short = {"input": "Hi", "max_output_tokens": 5}
        of_ben = server.client.post("/v1/responses", json=short, headers=ben).json()["id"]
        monkeypatch.setattr(ResponseStore, "_promise_room", lambda store: setattr(store, "max_bytes_of_user", 4000))
        ids = [ask(server)["id"] for _ in range(6)]
        assert server.client.get(f"/v1/responses/{of_ben}", headers=ben).status_code == 200
        there = [server.client.get(f"/v1/responses/{each}").status_code == 200 for each in (id, *ids)]
        assert not there[0] and there[-1] and there == sorted(there)
        monkeypatch.setattr(response_store, "KEPT_SECONDS", 0.0)
        assert server.client.get(f"/v1/responses/{ids[-1]}").status_code == 404


def test_what_is_kept_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    for room, every in ((10**12, KEPT_BYTES), (10**9, 10**7), (0, 0)):
        monkeypatch.setattr(memory, "room", lambda total, available=None, room=room: room)
        store = ResponseStore()
        asyncio.run(store.put("anna", {"id": "resp_1", "output": [{"type": "message"}]}, [{"id": "item_1"}], None))
        assert (store.max_bytes, store.max_bytes_of_user) == (every, every // 4)
        assert store._promise and store._promise.nbytes == every
        if every:
            assert store.conversation("anna", "resp_1") == [{"id": "item_1"}, {"type": "message"}]
            assert any(each.pid == os.getpid() and each.nbytes >= every for each in holders())
        else:
            with pytest.raises(ApiError, match="no response"):
                store.get("anna", "resp_1")
        store._promise.release()


def test_no_field_is_dropped_in_silence() -> None:
    given = set(response_create_params.ResponseCreateParamsBase.__annotations__)
    known = names(response_items.ResponsesBody) | set(REFUSED) | set(WITHOUT_EFFECT)
    assert given <= known, given - known
