"""What a chat template says about its model: how it thinks, how it calls tools, which switches it has.

Everything is taken from the template's text, nothing from the model's name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from seventy.text import reasoning
from seventy.text.calls import CallStyle, style
from seventy.text.calls.base import Tool, parameters
from seventy.text.calls.harmony import Harmony
from seventy.text.parts import Part, Text
from seventy.text.reasoning import Reasoning, Tags
from seventy.text.tools import one_call_each

# What templates call the thinking of an earlier answer, as a key of its message.
_HISTORY_KEYS = ("reasoning_content", "thinking", "reasoning")
# Variables of templates that hold a block of a message's content, not a message.
_BLOCKS = ("block", "part", "chunk", "item", "content")
_SWITCHES = ("enable_thinking", "thinking", "thinking_mode", "reasoning_effort")
_LEVELS = ("none", "no_think", "minimal", "low", "medium", "high", "xhigh", "max")
# gpt-oss was trained on three levels.
_HARMONY_EFFORTS = {"none": "low", "minimal": "low", "low": "low", "medium": "medium"}


class AnswerReader:
    """Reads the pieces of an answer into thinking, text and calls. `calls`: how many are whole."""

    def __init__(self, thinking: Reasoning | None, calls: CallStyle | None) -> None:
        self._thinking, self._calls = thinking, calls

    @property
    def calls(self) -> int:
        return self._calls.calls if self._calls else 0

    def push(self, piece: str) -> list[Part]:
        """Feed a piece of the answer; return the parts that are complete enough to show."""
        return self._with_calls(self._thinking.push(piece) if self._thinking else [Text(piece)])

    def flush(self, cut: bool = False) -> list[Part]:
        """End the answer and return the rest. `cut` says that the model did not end it itself."""
        parts = self._with_calls(self._thinking.flush() if self._thinking else [])
        return [*parts, *self._calls.flush(cut)] if self._calls else parts

    def _with_calls(self, parts: Iterable[Part]) -> list[Part]:
        if self._calls is None:
            return list(parts)
        return [new for part in parts for new in (self._calls.push(part.text) if isinstance(part, Text) else (part,))]


@dataclass(frozen=True, slots=True)
class Conventions:
    """`markers` are the special tokens that steer how an answer is read: they must show in its text.

    `switches` are the variables the template reads about thinking, `thinks` whether it knows thinking at all.
    """

    tags: Tags
    style: type[CallStyle]
    switches: frozenset[str]
    thinks: bool
    markers: tuple[str, ...]
    # Keys of messages the template reads, and whether thinking is one of several blocks in `content` instead.
    history_keys: tuple[str, ...]
    blocks: bool
    # Levels of effort it names.
    levels: frozenset[str]
    # Whether it reads its tools from a variable `functions`.
    functions: bool

    @staticmethod
    @lru_cache(8)
    def of(template: str) -> "Conventions":
        code = _code(template)
        names = _STRING.sub(" ", code)

        def reads(variable: str) -> bool:
            return re.search(rf"(?<![.\w]){variable}\b", names) is not None

        switches = frozenset(filter(reads, _SWITCHES))
        keys = tuple(key for key in _HISTORY_KEYS if _reads(code, key))
        tags, calls = reasoning.tags(template), style(template)
        return Conventions(
            tags=tags,
            style=calls,
            switches=switches,
            thinks=calls is Harmony or tags.open in template or bool(switches),
            markers=(tags.open, tags.close, *calls.markers),
            history_keys=keys,
            blocks=not keys and re.search(r"""['"]type['"]\] *== *['"]thinking['"]""", code) is not None,
            levels=frozenset(level for level in _LEVELS if re.search(rf"""['"]{level}['"]""", code)),
            functions=reads("functions") and not reads("tools"),
        )

    def variables(self, think: bool | None, effort: str | None) -> dict[str, Any]:
        """Return the template variables that turn thinking on or off and set its effort (low, high ...)."""
        values: dict[str, Any] = {}
        if think is not None:
            values = {"enable_thinking": think, "thinking": think, "thinking_mode": "enabled" if think else "disabled"}
        if self.style is Harmony:
            effort = "none" if think is False else effort
            effort = None if effort is None else _HARMONY_EFFORTS.get(effort, "high")
        elif think is False:
            effort = next((level for level in ("none", "no_think", "minimal") if level in self.levels), None)
        if effort is not None:
            values["reasoning_effort"] = effort
        return {name: value for name, value in values.items() if name in self.switches}

    def history(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Convert messages to the template's format. `reasoning_content` is the thinking of an earlier answer."""
        changed = [self._message(message) for message in messages]
        return one_call_each(changed) if self.style.one_call_each else changed

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        thought = message.get("reasoning_content")
        if not thought:
            return dict(message)
        content = message.get("content")
        if self.blocks:
            said = [{"type": "text", "text": content}] if content else []
            return {**message, "content": [{"type": "thinking", "thinking": thought}, *said]}
        if self.style is Harmony and message.get("tool_calls") and content:
            # Its template takes one of both there, and puts either on the channel analysis.
            return {**message, **dict.fromkeys(self.history_keys, f"{thought}\n\n{content}"), "content": ""}
        return {**message, **dict.fromkeys(self.history_keys, thought)}

    def opens(self, prompt: str) -> bool:
        """Return whether the answer to this prompt begins inside the thinking."""
        return self.tags.opened_by(prompt)

    def answer_at_once(self, prompt: str, calls: bool) -> str:
        """Return the prompt for an answer without thinking, which may still begin with a call if `calls`."""
        if self.style is Harmony:
            return prompt if calls else Harmony.opened(prompt)
        return self.tags.closed(prompt) if self.opens(prompt) else prompt

    def reader(self, prompt: str, tools: Sequence[Tool]) -> AnswerReader:
        """Create a reader for one answer to this prompt, in which these tools may be called."""
        known = {tool["function"]["name"]: parameters(tool) for tool in tools}
        if self.style is Harmony:
            return AnswerReader(None, Harmony(known, Harmony.channel(prompt)))
        return AnswerReader(Reasoning(self.tags, self.opens(prompt)), self.style(known) if known else None)


# A template comes from a stranger: these patterns take time proportional to its length, whatever it is.
_BEGIN, _END = re.compile(r"\{[{%]"), re.compile(r"[%}]\}")
_STRING = re.compile(r"""'(?:\\.|[^'\\])*+(?:'|\Z)|"(?:\\.|[^"\\])*+(?:"|\Z)""", re.DOTALL)


def _code(template: str) -> str:
    """The statements and expressions of a template, without its text and comments."""
    pieces, at = list[str](), 0
    while (begin := _BEGIN.search(template, at)) and (end := _END.search(template, begin.end())):
        pieces.append(template[begin.end() : end.start()])
        at = end.end()
    return "\n".join(pieces)


def _reads(code: str, key: str) -> bool:
    """Whether a template reads this key of its messages."""
    name = r"\b(\w{1,40})"
    uses = re.findall(rf"""{name}(?:\.get\(['"]|\[['"]|\.){key}\b|['"]{key}['"] in {name}""", code)
    return any((before or after) not in _BLOCKS for before, after in uses)
