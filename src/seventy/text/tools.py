"""How models are told of tools, and calls and their answers put into a conversation as its template takes them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from seventy.text.calls.json_calls import Hermes

_TAG, _END = Hermes.markers
# From Hermes' own template (NousResearch), which Qwen 2.5 follows.
_INSTRUCTIONS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def describe(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert messages for a template without tools: tools go into the system prompt, calls become text."""
    plain: list[dict[str, Any]] = []
    for message in messages:
        content = message.get("content") or ""
        if message["role"] == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if plain and plain[-1]["role"] == "user" and plain[-1]["content"].startswith("<tool_response>"):
                plain[-1]["content"] += "\n" + content
                continue
            plain.append({"role": "user", "content": content})
            continue
        for call in message.get("tool_calls") or ():
            function = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
            content += f"{chr(10) if content else ''}{_TAG}\n{json.dumps(function, ensure_ascii=False)}\n{_END}"
        plain.append({"role": message["role"], "content": content})
        if thought := message.get("reasoning_content"):
            plain[-1]["reasoning_content"] = thought
    if tools:
        lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        words = _INSTRUCTIONS.format(tools=lines)
        if plain and plain[0]["role"] == "system":
            plain[0]["content"] += "\n\n" + words
        else:
            plain.insert(0, {"role": "system", "content": words})
    return plain


def one_call_each(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split messages for templates that allow one call per message (Llama 3, gpt-oss): each call is followed by its
    result.

    Results are matched to calls by id, else by order. Thinking and text stay with the first call.
    """
    flat: list[dict[str, Any]] = []
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls = message.get("tool_calls") or ()
        if len(calls) <= 1:
            flat.append(message)
            continue
        following = next((at for at, other in enumerate(rest) if other["role"] != "tool"), len(rest))
        answers, rest = rest[:following], rest[following:]
        for at, call in enumerate(calls):
            flat.append({**message, "tool_calls": [call]} if not at else {**_silent(message), "tool_calls": [call]})
            answer = next((one for one in answers if _answers(one, call)), None)
            if answer is not None:
                flat.append(answer)
                answers.remove(answer)
        flat += answers
    return flat


def _silent(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "content": ""}


def _answers(answer: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
    ids = answer.get("tool_call_id"), call.get("id")
    return ids[0] == ids[1] if all(ids) else True
