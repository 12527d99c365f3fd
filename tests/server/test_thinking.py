"""Thinking and channels through the server: switches of three APIs, what comes back, what goes into the history."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seventy import LLM
from tests.server.conftest import Running, serving
from tests.support import templates

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {
    "type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"], "additionalProperties": False,
}}} for name in ("add", "mul")]  # fmt: skip


@contextlib.contextmanager
def speaking(tiny: Path, template: str) -> Iterator[tuple[Running, list[str]]]:
    """A server of random weights with this chat template, and the prompts it was given."""
    prompts: list[str] = []

    def load(progress: Any) -> LLM:
        llm = LLM(tiny, threads=2, context=1500, sequences=4, chat_template=template)
        tokens = llm.prompt_ids

        def prompt_ids(prompt: Any) -> list[int]:
            prompts.append(prompt)
            return tokens(prompt)

        llm.prompt_ids = prompt_ids  # type: ignore[method-assign]
        return llm

    with serving(tiny, load=load) as server:
        server.wait()
        yield server, prompts


def test_switches_of_three_apis(tiny: Path) -> None:
    with speaking(tiny, templates.QWEN35) as (server, prompts):
        client = server.client
        no, yes = "<think>\n\n</think>\n\n", "assistant\n<think>\n"
        for ways, end in {
            (("think", False), ("enable_thinking", False), ("reasoning_effort", "none")): no,
            (("think", True), ("enable_thinking", True), ("reasoning_effort", "high"), ("user", "x")): yes,
        }.items():
            for name, value in ways:
                server.chat("Hello", max_tokens=1, **{name: value})
                assert prompts[-1].endswith(end), (name, value)
        for key, value in ("enable_thinking", False), ("thinking", False), ("enable_thinking", True):
            kwargs, end = {key: value}, yes if value else no
            server.chat("Hello", max_tokens=1, reasoning_effort="low", chat_template_kwargs=kwargs)
            assert prompts[-1].endswith(end), kwargs
        for think, end in ((False, no), (True, yes), ("high", yes), (None, yes)):
            body = {"think": think, "stream": False, "options": {"num_predict": 1}}
            assert client.post("/api/chat", json={"messages": HELLO, **body}).status_code == 200
            assert prompts[-1].endswith(end), think
            assert client.post("/api/generate", json={"prompt": "Hello", **body}).status_code == 200
            assert prompts[-1].endswith(end), think
        body = {"messages": HELLO, "reasoning_effort": "much"}
        assert client.post("/v1/chat/completions", json=body).status_code == 400
        assert "thinking" in client.post("/api/show", json={}).json()["capabilities"]


def test_thinking_that_the_template_always_opens_is_closed(tiny: Path) -> None:
    with speaking(tiny, templates.MINIMAX) as (server, prompts):
        choice = server.chat("Hello", max_tokens=5, think=False, ignore_eos=True)["choices"][0]
        assert prompts[-1].endswith("]~b]ai\n<think>\n\n</think>\n\n")
        assert "reasoning_content" not in choice["message"] and choice["message"]["content"]
        choice = server.chat("Hello", max_tokens=5, ignore_eos=True)["choices"][0]
        assert choice["message"]["reasoning_content"] and choice["message"]["content"] == ""


def test_a_model_without_thinking_says_so(tiny: Path) -> None:
    with speaking(tiny, templates.PLAIN) as (server, _):
        for body in ({"think": True}, {"reasoning_effort": "low"}):
            response = server.client.post("/v1/chat/completions", json={"messages": HELLO, **body})
            assert response.status_code == 400 and "knows no thinking" in response.json()["error"]["message"]
            assert response.json()["error"]["param"] == next(iter(body))
        for think in (True, "low"):
            response = server.client.post("/api/chat", json={"messages": HELLO, "think": think})
            assert response.status_code == 400 and "no thinking; leave think out" in response.json()["error"]
        server.chat("Hello", max_tokens=1, think=False, reasoning_effort="none")
        assert "thinking" not in server.client.post("/api/show", json={}).json()["capabilities"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_what_an_earlier_answer_thought_goes_back(tiny: Path, key: str) -> None:
    with speaking(tiny, templates.GEMMA4) as (server, prompts):
        server.chat([*HELLO, {"role": "assistant", "content": "Yes", key: "XYZZY"}, *HELLO], max_tokens=1)
        assert "<|channel>thought\nXYZZY\n<channel|>Yes<turn|>" in prompts[-1]
        earlier = {"role": "assistant", "content": "Yes", "thinking": "XYZZY"}
        body = {"messages": [*HELLO, earlier, *HELLO], "stream": False, "options": {"num_predict": 1}}
        assert server.client.post("/api/chat", json=body).status_code == 200
        assert "<|channel>thought\nXYZZY\n<channel|>Yes<turn|>" in prompts[-1]


def test_harmony(tiny: Path) -> None:
    with speaking(tiny, templates.HARMONY) as (server, prompts):
        # Without a header, as random weights write: all of it is text.
        choice = server.chat("Hello", max_tokens=5, temperature=0, ignore_eos=True)["choices"][0]
        assert prompts[-1].endswith("<|start|>assistant") and "Reasoning: medium" in prompts[-1]
        assert choice["message"]["content"]
        server.chat("Hello", max_tokens=1, reasoning_effort="high")
        assert "Reasoning: high" in prompts[-1] and prompts[-1].endswith("<|start|>assistant")
        server.chat("Hello", max_tokens=1, think=False)
        assert "Reasoning: low" in prompts[-1] and prompts[-1].endswith("<|channel|>final<|message|>")
        # An answer of a form is the final message.
        message = server.chat("Hello", regex="yes|no")["choices"][0]["message"]
        assert message["content"] in ("yes", "no") and prompts[-1].endswith("<|channel|>final<|message|>")
        # A call that must come, whole and in pieces.
        choice = server.chat("1+1", tools=TOOLS, tool_choice="required")["choices"][0]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] in ("add", "mul")
        assert json.loads(call["function"]["arguments"]) in ({"x": 1}, {"x": 2})
        named = {"type": "function", "function": {"name": "mul"}}
        body = {"messages": HELLO, "tools": TOOLS, "tool_choice": named, "stream": True}
        with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
        choices = [json.loads(line)["choices"][0] for line in lines]
        calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
        assert calls[0]["function"] == {"name": "mul", "arguments": ""} and len(calls) > 2
        assert json.loads("".join(call["function"]["arguments"] for call in calls)) in ({"x": 1}, {"x": 2})
        assert choices[-1]["finish_reason"] == "tool_calls"
        assert not any(choice["delta"].get("content") for choice in choices)
        # And back into the history, two of one message.
        twice = [{**call, "id": str(i)} for i in range(2)]
        assistant = {"role": "assistant", "content": None, "reasoning_content": "XYZZY", "tool_calls": twice}
        results = [{"role": "tool", "tool_call_id": str(i), "content": f"result {i}"} for i in range(2)]
        server.chat([*HELLO, assistant, *results], tools=TOOLS, max_tokens=1)
        assert prompts[-1].count("XYZZY") == 1 and prompts[-1].count("<|call|>") == 2
        assert prompts[-1].index("result 0") < prompts[-1].rindex("<|call|>") < prompts[-1].index("result 1")
