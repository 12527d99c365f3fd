"""What every way to write calls of tools has."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from seventy.text.parts import Part, Splitter

Tool = Mapping[str, Any]


class CallStyle(Splitter):
    """The style in which a family of models writes tool calls. An instance reads the calls of one answer.

    It is fed the answer piece by piece. Calls of the tools (a dict from names to the JSON schemas of their arguments)
    become CallStart and CallArguments; everything else is returned as text, perhaps later but unchanged.
    """

    # Tokens that must show in the answer's text, whatever the file says of them.
    markers: ClassVar[tuple[str, ...]] = ()
    # Whether templates of this style take one call in a message.
    one_call_each: ClassVar[bool] = False

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self.tools = tools
        self.calls = 0

    @staticmethod
    @abstractmethod
    def written_by(template: str) -> bool:
        """Return whether models with this chat template use this style."""

    @staticmethod
    @abstractmethod
    def grammar(tools: Sequence[Tool], parallel: bool) -> str:
        """Return a grammar (llguidance's Lark) of answers that call one of these tools, or several if `parallel`."""

    @staticmethod
    @abstractmethod
    def written(calls: Sequence[Mapping[str, Any]]) -> str:
        """Return calls in the model's own syntax; each has `name` and `arguments`."""

    @classmethod
    def spoken(cls, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message with its calls moved into the content, for templates that ignore them."""
        spoken = {key: value for key, value in message.items() if key != "tool_calls"}
        if calls := message.get("tool_calls"):
            parts = [message.get("content") or "", cls.written([call["function"] for call in calls])]
            spoken["content"] = "\n".join(part for part in parts if part)
        return spoken

    @abstractmethod
    def flush(self, cut: bool = False) -> list[Part]:
        """End the answer and return the rest. If it was `cut`, an unfinished call is not returned as text."""


def parameters(tool: Tool) -> Mapping[str, Any]:
    """Return the JSON schema of a tool's arguments."""
    return tool["function"].get("parameters") or {"type": "object"}
