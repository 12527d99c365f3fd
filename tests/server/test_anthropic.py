"""/v1/messages as Anthropic's own client uses it, and as coding agents send it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import pytest

from seventy.server import anthropic as door
from seventy.server.fields import REFUSED, WITHOUT_EFFECT
from seventy.server.guard import Rules
from tests.server.conftest import Running, serving
from tests.server.test_clients import PERSON, WEATHER
from tests.server.test_fields import names
from tests.server.test_thinking import speaking
from tests.support import templates

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
TOOL: Any = {
    "name": "get_weather", "description": "The weather of a city.", "input_schema": WEATHER["function"]["parameters"]
}  # fmt: skip
ANY = {"type": "any", "disable_parallel_tool_use": True}


@pytest.fixture(scope="module")
def client(small_model: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=small_model.url, api_key="none", max_retries=0) as client:
        yield client


def ask(server: Running, status: int = 200, **body: Any) -> dict[str, Any]:
    response = server.client.post("/v1/messages", json={"max_tokens": 5, "messages": HELLO, **body})
    assert response.status_code == status, response.text
    return response.json()


def events(server: Running, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream; each one's name is its type."""
    response = server.client.post("/v1/messages", json={"max_tokens": 5, "messages": HELLO, "stream": True, **body})
    found = [event.split("\n", 1) for event in response.text.strip().split("\n\n")]
    parsed = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in found]
    assert all(name == value["type"] for name, value in parsed)
    return [value for _, value in parsed]


def test_message_and_stream(client: anthropic.Anthropic, small_model: Running) -> None:
    options: Any = {"model": small_model.model, "max_tokens": 20, "messages": HELLO, "extra_body": {"temperature": 0}}
    options["system"] = [{"type": "text", "text": "You are brief.", "cache_control": {"type": "ephemeral"}}]
    whole = client.messages.create(**options)
    assert whole.id.startswith("msg_") and whole.role == "assistant" and whole.model == small_model.model
    with client.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert [block.text for block in whole.content] == [text] == [block.text for block in streamed.content]
    assert streamed.stop_reason == whole.stop_reason and streamed.usage.output_tokens == whole.usage.output_tokens
    usage = streamed.usage
    assert usage.cache_read_input_tokens
    counted = client.messages.count_tokens(model="any", messages=HELLO, system=options["system"]).input_tokens
    assert usage.input_tokens + usage.cache_read_input_tokens == counted
    # The other doors lead to the same prompt.
    plain = small_model.chat([{"role": "system", "content": "You are brief."}, *HELLO], max_tokens=20, temperature=0)
    assert plain["choices"][0]["message"]["content"] == text


def test_stops_and_a_beginning(client: anthropic.Anthropic, small_model: Running) -> None:
    stopped = client.messages.create(
        model="any", max_tokens=40, stop_sequences=["5"], messages=[
            {"role": "user", "content": "Count from 1 to 9."}, {"role": "assistant", "content": "1, 2, 3, 4,"},
        ], extra_body={"temperature": 0},
    )  # fmt: skip
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "5")
    assert "".join(block.text for block in stopped.content).strip() == ""
    assert ask(small_model, max_tokens=1)["stop_reason"] == "max_tokens"


def test_tools(client: anthropic.Anthropic, small_model: Running) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    for choice in (ANY, {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}):
        options: Any = {"model": "any", "max_tokens": 80, "messages": asked, "tools": [TOOL], "tool_choice": choice}
        with client.messages.stream(**options) as stream:
            said = stream.get_final_message()
        assert said.stop_reason == "tool_use"
        call = said.content[0]
        assert call.type == "tool_use" and call.name == "get_weather" and call.id.startswith("toolu_")
        jsonschema.validate(call.input, TOOL["input_schema"])
    told = client.messages.create(
        model="any", max_tokens=10, tools=[TOOL], messages=[
            *asked, {"role": "assistant", "content": [block.model_dump() for block in said.content]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Rain, 12 C"}]},
                {"type": "text", "text": "So?"},
            ]},
        ],
    )  # type: ignore[call-overload]  # fmt: skip
    assert told.content
    person = ask(small_model, max_tokens=80, output_config={"format": {"type": "json_schema", "schema": PERSON}})
    if person["stop_reason"] == "end_turn":
        jsonschema.validate(json.loads(person["content"][0]["text"]), PERSON)


def test_events_of_a_stream(small_model: Running) -> None:
    told = events(small_model, tools=[TOOL], tool_choice=ANY, max_tokens=80)
    kinds = [event["type"] for event in told if event["type"] != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert told[0]["message"]["content"] == [] and told[0]["message"]["usage"]["input_tokens"] > 0
    start = next(event for event in told if event["type"] == "content_block_start")
    assert start["index"] == 0 and start["content_block"]["input"] == {}
    deltas = [event["delta"] for event in told if event["type"] == "content_block_delta" and event["index"] == 0]
    assert {delta["type"] for delta in deltas} == {"input_json_delta"}
    jsonschema.validate(json.loads("".join(delta["partial_json"] for delta in deltas)), TOOL["input_schema"])
    assert told[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert told[-2]["usage"]["output_tokens"] > 0


def test_what_agents_send_becomes_a_conversation() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    body = door.MessagesBody.model_validate({
        "max_tokens": 9, "system": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "document", "title": "a.txt",
             "source": {"type": "text", "media_type": "text/plain", "data": "42"}}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "f", "input": {}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "Go on"}, {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": "no file"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "x"},
    })  # fmt: skip
    wish = body.wish()
    assert wish["messages"] == [
        {"role": "system", "content": "One.\nTwo."},
        {"role": "user", "content": "Look\na.txt\n42"},
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [
            {"id": "t1", "function": {"name": "f", "arguments": {"a": 1}}},
            {"id": "t2", "function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no file"},
        {"role": "user", "content": "Go on"},
    ]  # fmt: skip
    assert wish["think"] and not wish["continue_final_message"] and wish["max_tokens"] == 9
    for content in ([image], [{"type": "tool_result", "tool_use_id": "t", "content": [image]}]):
        with pytest.raises(Exception, match="reads text only, no images"):
            door.MessagesBody.model_validate(
                {"max_tokens": 9, "messages": [{"role": "user", "content": content}]}
            ).wish()


def test_thinking(tiny: Path) -> None:
    with speaking(tiny, templates.QWEN35) as (server, prompts):
        for thinking, end in (({"type": "enabled", "budget_tokens": 1024}, "<think>\n"),
                              ({"type": "disabled"}, "<think>\n\n</think>\n\n"), (None, "<think>\n")):  # fmt: skip
            ask(server, thinking=thinking)
            assert prompts[-1].endswith(end), thinking
        said = ask(server, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=9)
        assert [block["type"] for block in said["content"]] == ["thinking"] and said["content"][0]["signature"]
        told = events(server, thinking={"type": "enabled", "budget_tokens": 1024})
        deltas = [event["delta"]["type"] for event in told if event["type"] == "content_block_delta"]
        assert deltas[0] == "thinking_delta" and deltas[-1] == "signature_delta"
        hidden = ask(server, thinking={"type": "adaptive", "display": "omitted"}, max_tokens=9)["content"][0]
        assert hidden["thinking"] == "" and hidden["signature"]
    with speaking(tiny, templates.PLAIN) as (server, prompts):
        # Agents ask every model to think; one that cannot answers, and says so.
        body = {"max_tokens": 2, "messages": HELLO, "thinking": {"type": "enabled", "budget_tokens": 1024}}
        response = server.client.post("/v1/messages", json=body)
        assert response.status_code == 200 and "no thinking" in response.headers["X-Seventy-Changed"]


def test_errors(client: anthropic.Anthropic, small_model: Running, tiny: Path) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
        small: Any = {"model": "any", "messages": HELLO}
        client.post("/v1/messages", body=small, cast_to=object)
    with pytest.raises(anthropic.BadRequestError, match="the context of 2048 has no room"):
        client.messages.create(model="any", max_tokens=1, messages=[{"role": "user", "content": "a b " * 3000}])
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305 is not here"):
        client.messages.create(model="any", max_tokens=1, messages=HELLO, tools=[search])
    wrong = ask(small_model, 400, messages=[{"role": "king", "content": "x"}])
    assert wrong["type"] == "error" and wrong["error"]["type"] == "invalid_request_error"
    assert ask(small_model, 400, tools=[{**TOOL, "name": "get weather"}])["error"]["type"] == "invalid_request_error"
    assert ask(small_model, 400, mcp_servers=[{"url": "x"}])["error"]["message"].startswith("mcp_servers")
    rules = Rules({"anna": "secret"}, max_body_bytes=2000)
    with serving(tiny, rules=rules) as server:
        server.wait()
        with anthropic.Anthropic(base_url=server.url, api_key="secret", max_retries=0) as known:
            assert known.messages.create(model="any", max_tokens=2, messages=HELLO).usage.output_tokens
            assert [model.id for model in known.models.list()] == [server.model]
            with pytest.raises(anthropic.APIStatusError) as large:
                known.messages.create(model="any", max_tokens=2, messages=[{"role": "user", "content": "x" * 3000}])
            assert large.value.status_code == 413 and large.value.body["error"]["type"] == "request_too_large"  # type: ignore[index]
        with (
            anthropic.Anthropic(base_url=server.url, api_key="other", max_retries=0) as stranger,
            pytest.raises(anthropic.AuthenticationError),
        ):
            stranger.messages.create(model="any", max_tokens=2, messages=HELLO)


def test_no_field_is_dropped_in_silence() -> None:
    given = set(anthropic.types.message_create_params.MessageCreateParamsBase.__annotations__)
    # What agents send of the beta.
    given |= {"context_management", "mcp_servers", "output_format"}
    known = names(door.MessagesBody) | set(REFUSED) | set(WITHOUT_EFFECT)
    assert given <= known, given - known
