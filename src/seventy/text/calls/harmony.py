"""The format of gpt-oss, in which an answer is several messages, each on a channel.

    <|channel|>analysis<|message|>What it thinks.<|end|>
    <|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>
    <|start|>assistant<|channel|>final<|message|>What it says.<|return|>

The recipient may also stand before the channel. Source: OpenAI's guide to the harmony response format.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seventy.text.calls.arguments import of_schema
from seventy.text.calls.base import CallStyle, Tool, parameters
from seventy.text.calls.repair import write
from seventy.text.parts import CallArguments, CallStart, Part, Text, Thought, overlap

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_HEADER_MARKS = (_START, _CHANNEL, _CONSTRAIN, _MESSAGE)
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_MARKS = (*_HEADER_MARKS, *_ENDS)
_FUNCTIONS = "functions."
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_CHANNEL_NAME = re.compile(r"<\|channel\|>(\w*)")
# A mark, white space, or a word of a header.
_ITEM = re.compile(rf"{'|'.join(map(re.escape, _MARKS))}|\s+|[^\s<]+|<")
# assistant, channel, recipient, content type: a header has no more words.
_MAX_WORDS = 4


class Harmony(CallStyle):
    """Reads the whole answer: analysis is thinking, what is for a tool of `tools` a call, the rest is text.

    Commentary for nobody is text (it tells the user what comes). Messages of one kind are divided by an empty line.
    What is written without a header is text, too. `channel`: of the message that the prompt has opened, if it has.
    """

    markers = (*_HEADER_MARKS, "<|end|>")
    one_call_each = True

    def __init__(self, tools: Mapping[str, Mapping[str, Any]], channel: str | None = None) -> None:
        super().__init__(tools)
        self._in_header = channel is None
        # The kind of the message that is read, and how to begin its text.
        self._kind: type[Thought] | type[Text] | type[CallArguments] = Thought if channel == "analysis" else Text
        self._before = ""
        self._empty = True
        self._shown = set[type]()

    @staticmethod
    def written_by(template: str) -> bool:
        return all(mark in template for mark in (_START, _CHANNEL, _MESSAGE))

    @staticmethod
    def grammar(tools: Sequence[Tool], parallel: bool) -> str:
        # A call ends the answer: there is never a second one.
        lines = ["start: " + " | ".join(f"call{at}" for at in range(len(tools)))]
        for at, tool in enumerate(tools):
            head = f"{_CHANNEL}commentary to={_FUNCTIONS}{tool['function']['name']} {_CONSTRAIN}json{_MESSAGE}"
            lines.append(f"call{at}: {json.dumps(head)} arguments{at}")
            lines.append(f"arguments{at}: {of_schema(parameters(tool))}")
        return "\n".join(lines) + "\n"

    @staticmethod
    def written(calls: Sequence[Mapping[str, Any]]) -> str:
        return f"<|call|>{_START}assistant".join(
            f"{_CHANNEL}commentary to={_FUNCTIONS}{call['name']} {_CONSTRAIN}json{_MESSAGE}{write(call['arguments'])}"
            for call in calls
        )

    @staticmethod
    def opened(prompt: str) -> str:
        """Return the prompt with the final message begun, so that its text follows at once."""
        return f"{prompt}{_CHANNEL}final{_MESSAGE}"

    @staticmethod
    def channel(prompt: str) -> str | None:
        """Return the channel of the message that the prompt leaves open; None if the answer begins with a header."""
        header, mark, text = prompt[prompt.rfind(_START) :].partition(_MESSAGE)
        if not mark or any(end in text for end in _ENDS):
            return None
        return next(iter(_CHANNEL_NAME.findall(header)), "")

    def _advance(self, parts: list[Part]) -> bool:
        return self._header(parts) if self._in_header else self._body(parts)

    def flush(self, cut: bool = False) -> list[Part]:
        held, self._held = self._held, ""
        parts: list[Part] = []
        if not self._in_header:
            self._say(parts, held)
            self._end(parts)
        elif held.strip() and not any(mark in held for mark in (*_HEADER_MARKS, f"to={_FUNCTIONS}")):
            self._begin(parts, "")
            self._say(parts, held)
        return parts

    def _header(self, parts: list[Part]) -> bool:
        """What stands before a message's text; False when more of it must come."""
        # Where the header ends, and where its last mark does.
        at = last = words = 0
        for item in _ITEM.finditer(self._held):
            found, at = item[0], item.start()
            if found == _MESSAGE:
                self._begin(parts, self._held[:at])
                self._held = self._held[item.end() :]
                return True
            if found in _ENDS or (found == _START and at):
                # A header that led to nothing.
                self._held = self._held[at if found == _START else item.end() :]
                return True
            if found in _HEADER_MARKS:
                last = item.end()
            elif any(mark.startswith(self._held[at:]) for mark in _MARKS):
                return False
            elif found.isspace():
                if (last or words) and "\n" in found:
                    break
            else:
                words += 1
                if words > _MAX_WORDS or not (last or words > 1 or _may_begin(self._held[at:])):
                    break
        else:
            return False
        # A text of its own, or one whose mark was forgotten.
        self._begin(parts, self._held[:last])
        self._held = self._held[last:]
        return True

    def _begin(self, parts: list[Part], header: str) -> None:
        self._in_header, self._before, self._empty = False, "", True
        channels = _CHANNEL_NAME.findall(header)
        self._kind = Thought if channels and channels[-1] == "analysis" else Text
        recipients = _RECIPIENT.findall(header)
        recipient = recipients[-1] if recipients else ""
        name = recipient.removeprefix(_FUNCTIONS)
        if name in self.tools:
            self._kind = CallArguments
            parts.append(CallStart(self.calls, name))
        elif recipient not in ("", "assistant", "user", "all"):
            # A tool nobody offered.
            self._before = f"to={recipient} "
        if self._kind in self._shown and self._kind is not CallArguments:
            self._before = "\n\n" + self._before

    def _body(self, parts: list[Part]) -> bool:
        found = min(((at, mark) for mark in _MARKS if (at := self._held.find(mark)) >= 0), default=None)
        if found is None:
            keep = overlap(self._held, *_MARKS)
            self._say(parts, self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            return False
        at, mark = found
        self._say(parts, self._held[:at])
        # Where an end was forgotten, the next header begins.
        self._held = self._held[at if mark in (_START, _CHANNEL) else at + len(mark) :]
        if mark not in (_MESSAGE, _CONSTRAIN):
            self._end(parts)
            self._in_header = True
        return True

    def _say(self, parts: list[Part], text: str) -> None:
        if not text:
            return
        if self._kind is CallArguments:
            parts.append(CallArguments(self.calls, text))
            self._empty = self._empty and not text.strip()
            return
        text, self._before = self._before + text, ""
        self._shown.add(self._kind)
        parts.append(Thought(text) if self._kind is Thought else Text(text))

    def _end(self, parts: list[Part]) -> None:
        if self._kind is CallArguments:
            if self._empty:
                parts.append(CallArguments(self.calls, "{}"))
            self.calls += 1


def _may_begin(text: str) -> bool:
    """Whether a header without a mark in front may begin so."""
    return text.startswith("to=") or "to=".startswith(text)
