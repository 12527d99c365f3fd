import json
import random
from typing import Any

import pytest

from seventy.text import tools
from seventy.text.calls import CallStyle, style
from seventy.text.calls.json_calls import Hermes, Llama3
from seventy.text.parts import CallArguments, CallStart, Text

NAMES: dict[str, dict[str, Any]] = {"weather": {}, "add": {}}


def read(text: str, style: type[CallStyle], sizes: random.Random | None = None) -> tuple[str, list[tuple[str, Any]]]:
    """What is text, and the calls."""
    parser, at = style(NAMES), 0
    parts = []
    while at < len(text):
        n = sizes.randint(1, 5) if sizes else len(text)
        parts += parser.push(text[at : at + n])
        at += n
    parts += parser.flush()
    said, calls = "", list[list[str]]()
    for part in parts:
        if isinstance(part, Text):
            said += part.text
        elif isinstance(part, CallStart):
            assert part.index == len(calls)
            calls.append([part.name, ""])
        else:
            assert isinstance(part, CallArguments) and part.index == len(calls) - 1
            calls[-1][1] += part.text
    return said, [(name, json.loads(arguments)) for name, arguments in calls]


CALL = '{"name": "weather", "arguments": {"city": "Köln", "note": "a } \\" {"}}'


@pytest.mark.parametrize(
    ("style", "text", "said", "calls"),
    [
        (Hermes, "Just text.", "Just text.", []),
        (Hermes, f"<tool_call>\n{CALL}\n</tool_call>", "", [("weather", {"city": "Köln", "note": 'a } " {'})]),
        (
            Hermes,
            'I look.\n\n<tool_call>{"name": "add", "arguments": {"x": [1, {"y": 2}]}}</tool_call>\n'
            '<tool_call>\n{"arguments": {"x": 2}, "name": "add"}\n</tool_call>',
            "I look.",
            [("add", {"x": [1, {"y": 2}]}), ("add", {"x": 2})],
        ),
        (Hermes, '<tool_call>{"name": "other", "arguments": {}}</tool_call>', None, []),
        (Hermes, "<tool_call>no json", "<tool_call>no json", []),
        (Hermes, "a < b and <tool", "a < b and <tool", []),
        (Hermes, '<tool_call>{"name": "add", "arguments": "{\\"x\\": 1}"}</tool_call>', "", [("add", {"x": 1})]),
        (Llama3, '{"name": "add", "parameters": {"x": 1}}', "", [("add", {"x": 1})]),
        (Llama3, '{"type": "function", "name": "add", "parameters": {"x": 1}}', "", [("add", {"x": 1})]),
        (
            Llama3,
            '{"name": "add", "parameters": {"x": 1}}; {"name": "weather", "parameters": {}}',
            "",
            [("add", {"x": 1}), ("weather", {})],
        ),
        (Hermes, '{"name": "add", "arguments": {"x": 1}}', "", [("add", {"x": 1})]),
        (Hermes, '{ "name": "other"}', '{ "name": "other"}', []),
        (Hermes, '{"names": [1]} <tool', '{"names": [1]} <tool', []),
        (
            Hermes,
            '{"name": "Ann"}\n<tool_call>{"name": "add", "arguments": {}}</tool_call>',
            '{"name": "Ann"}',
            [("add", {})],
        ),
        (Llama3, "The set {1}", "The set {1}", []),
        (Llama3, '{"answer": 5}', '{"answer": 5}', []),
        (Llama3, '{"answer": ', '{"answer": ', []),
    ],
)
def test_calls_are_read_however_they_come(
    style: type[CallStyle], text: str, said: str | None, calls: list[Any]
) -> None:
    for sizes in (None, *map(random.Random, range(30))):
        got = read(text, style, sizes)
        assert got[1] == calls
        if said is not None:
            assert got[0].strip() == said.strip()
        else:
            assert '"other"' in got[0]


def test_arguments_come_before_the_call_is_whole() -> None:
    parser = Hermes(NAMES)
    begun = parser.push('<tool_call>{"name": "add", "arguments": {"x"')
    assert begun == [CallStart(0, "add"), CallArguments(0, '{"x"')]
    assert parser.push(": 12") == [CallArguments(0, ": 12")]


def test_messages_for_models_that_know_no_tools() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        {"role": "tool", "content": "3", "tool_call_id": "2"},
    ]
    plain = tools.describe(messages, [tool])
    assert [message["role"] for message in plain] == ["system", "user", "assistant", "user"]
    assert plain[0]["content"].startswith("Be brief.\n\n# Tools") and json.dumps(tool) in plain[0]["content"]
    assert plain[2]["content"].count("<tool_call>") == 2
    assert plain[3]["content"].count("<tool_response>") == 2
    assert tools.describe(messages[1:2], []) == [{"role": "user", "content": "1+1?"}]
    assert tools.describe([{"role": "user", "content": "x"}], [tool])[0]["role"] == "system"


def test_one_call_in_a_message() -> None:
    calls = [{"id": str(i), "function": {"name": "add", "arguments": {}}} for i in range(2)]
    messages = [
        {"role": "assistant", "content": "", "tool_calls": calls},
        *({"role": "tool", "content": str(i), "tool_call_id": str(i)} for i in range(2)),
        {"role": "user", "content": "go on"},
    ]
    flat = tools.one_call_each(messages)
    assert [message["role"] for message in flat] == ["assistant", "tool", "assistant", "tool", "user"]
    assert [message["content"] for message in flat[1::2]] == ["0", "1"]


def test_styles_are_known_by_their_templates() -> None:
    assert style('{% if tools %}<tool_call>{"name"...') is Hermes
    assert style('{% if tools %}{"name": function name, "parameters": dictionary}') is Llama3
    assert style("{{ messages }}") is Hermes
