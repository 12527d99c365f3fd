"""What a chat template asks of a conversation, found out by trying it, and conversations changed until it is met.

Templates were written for the conversations of their own model: many have no place for a system message, want user and
assistant to take turns, or read the arguments of calls as text. A need is one that a small conversation shows: without
it the template refuses the conversation or leaves a part of it out, with it all parts are in the prompt.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from seventy.errors import SeventyError
from seventy.language import t
from seventy.text.template import NoAnswer

Messages = list[dict[str, Any]]
# A template: messages, tools and variables to a prompt; SeventyError where it does not take them.
Render = Callable[..., str]

# Words that no template has.
_A, _B, _C, _D, _E = (f"Xq{letter}7vZ" for letter in "abcde")
_NINE, _LONG = "a1b2c3d4e", "call_0123456789abcdef01234567"
_TOOL = {
    "type": "function",
    "function": {
        "name": _A,
        "description": _B,
        "parameters": {
            "type": "object",
            "properties": {_C: {"type": "string", "description": "A word"}},
            "required": [_C],
        },
    },
}


def _said(*turns: tuple[str, str]) -> Messages:
    return [{"role": role, "content": text} for role, text in turns]


def _called(id: str, arguments: Any) -> Messages:
    call = {"id": id, "type": "function", "function": {"name": _A, "arguments": arguments}}
    return [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": _E, "tool_call_id": id},
    ]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A conversation as a template takes it; `changes` says in words what had to be moved or merged for that."""

    messages: Messages
    tools: Sequence[Mapping[str, Any]] | None
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """The needs of a template; all are False where it takes every conversation as it is."""

    # Content is a list of parts, never a text.
    parts: bool = False
    # Without tools there is an empty list of them.
    list_of_tools: bool = False
    # Tools have parameters, and these and they a description.
    whole_tools: bool = False
    # User and assistant take turns, and the user begins.
    turns: bool = False
    # There are no system messages.
    no_system: bool = False
    # The system message comes first, and there is one.
    one_system: bool = False
    # Arguments of calls are JSON text.
    text_arguments: bool = False
    # Arguments of calls are objects, also those that a model wrote so badly that they are none.
    object_arguments: bool = False
    # Ids of calls are nine letters or digits (Mistral).
    nine_letters: bool = False
    # Ids of calls are their name and their number in the conversation (Kimi).
    numbered: bool = False
    # It leaves calls out: they are to stand in the content, as the model wrote them.
    spoken_calls: bool = False
    # It knows no tools or no results: they are to be told in words.
    words: bool = False

    @staticmethod
    def of(render: Render) -> "Needs":
        """Find out what a template requires by rendering conversations. Raises SeventyError if it accepts none."""
        needs = Needs()

        def shown(needs: Needs, messages: Messages, words: Sequence[str], tools: Sequence[Any] = ()) -> bool:
            fitted = needs.fit(messages, tools)
            try:
                try:
                    text = render(fitted.messages, fitted.tools)
                except NoAnswer:
                    # A machine that stood still says nothing of the template.
                    text = render(fitted.messages, fitted.tools)
            except SeventyError:
                return False
            # Python's own quotes: a template that writes arguments as they are.
            return all(word in text for word in words) and f"'{_C}': '{_D}'" not in text

        def tried(needs: Needs, name: str, *conversation: Any) -> Needs:
            candidate = replace(needs, **{name: True})
            return candidate if not shown(needs, *conversation) and shown(candidate, *conversation) else needs

        hello = _said(("user", _A))
        for name in ("list_of_tools", "parts"):
            needs = tried(needs, name, hello, [_A])
        if not shown(needs, hello, [_A]):
            fitted = needs.fit(hello)
            render(fitted.messages, fitted.tools)
            raise SeventyError("the model's chat template leaves out what the user says; give another one")
        turns = _said(("user", _A), ("user", _B), ("assistant", _C), ("assistant", _D), ("user", _E))
        needs = tried(needs, "turns", turns, [_A, _B, _C, _D, _E])
        needs = tried(needs, "no_system", _said(("system", _A), ("user", _B)), [_A, _B])
        late = _said(("system", _A), ("user", _B), ("assistant", _C), ("system", _D), ("user", _E))
        needs = tried(needs, "one_system", late, [_A, _B, _C, _D, _E])
        calls = _called(_NINE, {_C: _D}), [_C, _D, _E]
        needs = tried(needs, "text_arguments", *calls)
        needs = tried(needs, "object_arguments", _called(_NINE, _D), [_D, _E])
        needs = tried(needs, "nine_letters", _called(_LONG, {_C: _D}), calls[1])
        for schema in {}, {"parameters": {"type": "object", "properties": {_C: {"type": "string"}}}}:
            bare = {"type": "function", "function": {"name": _A, **schema}}
            needs = tried(needs, "whole_tools", _said(("user", _E)), [_A, _E], [bare])
        if not (shown(needs, calls[0], [_E], [_TOOL]) and shown(needs, _said(("user", _E)), [_A, _B, _E], [_TOOL])):
            needs = replace(needs, words=True)
        elif not shown(needs, *calls, [_TOOL]):
            needs = replace(needs, spoken_calls=True)
        elif shown(needs, calls[0], [f"{_NINE}<|tool_call_argument_begin|>"], [_TOOL]):
            needs = replace(needs, numbered=True)
        return needs

    def fit(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> Fitted:
        """Change a conversation so that the template accepts it. A conversation that fits is returned unchanged."""
        changes: list[str] = []
        fitted = [dict(message) for message in messages]
        _pair(fitted, self._id)
        self._write_arguments(fitted)
        self._place_systems(fitted, changes)
        if self.turns:
            fitted = _take_turns(fitted, changes)
        if self.parts:
            for message in fitted:
                if isinstance(message.get("content"), str):
                    message["content"] = [{"type": "text", "text": message["content"]}]
        if self.whole_tools:
            tools = [{**tool, "function": _whole(tool["function"])} for tool in tools]
        return Fitted(fitted, list(tools) if tools or self.list_of_tools else None, tuple(changes))

    def _id(self, given: str | None, name: str, number: int) -> str:
        """The id of the conversation's call of this number, as the template wants it."""
        if self.numbered:
            return f"functions.{name}:{number}"
        if given and not self.nine_letters:
            return given
        if given and len(given) == 9 and given.isascii() and given.isalnum():
            return given
        return hashlib.sha256(f"{given or ''} {name} {0 if given else number}".encode()).hexdigest()[:9]

    def _write_arguments(self, messages: Messages) -> None:
        for message in messages:
            if message.get("tool_calls"):
                message["tool_calls"] = [
                    {**call, "function": {**call["function"], "arguments": self._arguments(call)}}
                    for call in message["tool_calls"]
                ]

    def _arguments(self, call: Mapping[str, Any]) -> Any:
        arguments = call["function"].get("arguments", {})
        if self.text_arguments and not isinstance(arguments, str):
            return json.dumps(arguments, ensure_ascii=False)
        if self.object_arguments and not isinstance(arguments, Mapping):
            return {"arguments": arguments}
        return arguments

    def _place_systems(self, messages: Messages, changes: list[str]) -> None:
        if not (self.no_system or self.one_system):
            return
        first = next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))
        if first > 1:
            changes.append(t("system messages were merged into one"))
            messages[:first] = [_joined(messages[:first])]
            first = 1
        for message in messages[first:]:
            if message["role"] == "system":
                changes.append(t("a later system message was given as the user's"))
                message["role"] = "user"
        if self.no_system and first:
            changes.append(t("the system message was put before the user's"))
            if len(messages) > 1 and messages[1]["role"] == "user":
                messages[:2] = [{**_joined(messages[:2]), "role": "user"}]
            else:
                messages[0]["role"] = "user"


def _whole(function: Mapping[str, Any]) -> dict[str, Any]:
    """A function with all that a template may ask for: descriptions, its own and its arguments', and parameters."""
    schema = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
    if isinstance(properties := schema["properties"], Mapping):
        schema["properties"] = {
            name: {"description": "", **one} if isinstance(one, Mapping) else one for name, one in properties.items()
        }
    return {"description": "", **function, "parameters": schema}


def _pair(messages: Messages, wanted: Callable[[str | None, str, int], str]) -> None:
    """Give calls and their results the ids that are wanted; a result without one belongs to the first call without."""
    number, open = count(), list[tuple[str | None, str, str]]()
    for message in messages:
        if message.get("tool_calls"):
            calls = []
            open = []
            for call in message["tool_calls"]:
                name = call["function"]["name"]
                id = wanted(call.get("id"), name, next(number))
                open.append((call.get("id"), name, id))
                calls.append({**call, "id": id})
            message["tool_calls"] = calls
        elif message["role"] == "tool":
            given, name = message.get("tool_call_id"), message.get("name")
            ways: Iterator[bool]
            for ways in (
                (given is not None and call[0] == given for call in open),
                (given is None and name is not None and call[1] == name for call in open),
                (given is None or call[0] is None for call in open),
            ):
                at = next((at for at, fits in enumerate(ways) if fits), None)
                if at is not None:
                    message["tool_call_id"] = open.pop(at)[2]
                    break
            else:
                message["tool_call_id"] = wanted(given, name or "", next(number))


def _take_turns(messages: Messages, changes: list[str]) -> Messages:
    """Messages of one speaker that follow each other are one; where the assistant begins, a user's stands before."""
    turns: Messages = []
    for message in messages:
        if turns and _mergeable(turns[-1], message):
            turns[-1] = _joined([turns[-1], message])
            changes.append(t("messages of the {message} that follow each other were merged", message=message["role"]))
            continue
        if turns and turns[-1]["role"] == "tool" and message["role"] == "user":
            turns.append({"role": "assistant", "content": "OK."})
            changes.append(t("an answer (OK.) was put between a tool's result and the user's next message"))
        turns.append(message)
    begins = next((at for at, message in enumerate(turns) if message["role"] != "system"), len(turns))
    if begins < len(turns) and turns[begins]["role"] == "assistant":
        turns.insert(begins, {"role": "user", "content": ""})
        changes.append(t("an empty message of the user was put before the assistant's first"))
    return turns


def _mergeable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    same = one["role"] == other["role"] and one["role"] in ("user", "assistant")
    return same and not (one.get("tool_calls") or other.get("tool_calls"))


def _joined(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One message that says what these say, with the role of the first."""
    contents = [message.get("content") or "" for message in messages]
    texts = [content for content in contents if isinstance(content, str)]
    if len(texts) == len(contents):
        content: Any = "\n\n".join(text for text in texts if text)
    else:
        lists = [[{"type": "text", "text": c}] if isinstance(c, str) else list(c) for c in contents if c]
        content = [part for parts in lists for part in parts]
    merged = {**messages[0]}
    for message in messages[1:]:
        for key, value in message.items():
            earlier = merged.get(key)
            both = isinstance(earlier, str) and isinstance(value, str) and key not in ("role", "name")
            merged[key] = f"{earlier}\n\n{value}" if both else earlier or value
    return {**merged, "content": content}
