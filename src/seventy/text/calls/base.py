"""What every way to write calls of tools has."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from seventy.text.parts import Part

Tool = Mapping[str, Any]


class CallStyle(ABC):
    """How a family of models writes its calls, and, as an instance, a reader of those in one answer.

    A reader takes the pieces of an answer as they come. Calls of the tools (their names, each with the JSON schema of
    its arguments) become CallStart and CallArguments; what is no call is text, late but whole.
    """

    # Tokens that must show in the answer's text, whatever the file says of them.
    markers: ClassVar[tuple[str, ...]] = ()
    # Whether templates of this style take one call in a message.
    one_call_each: ClassVar[bool] = False

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self.tools = tools
        self.calls = 0

    @staticmethod
    @abstractmethod
    def written_by(template: str) -> bool:
        """Whether models with this chat template write their calls so."""

    @staticmethod
    @abstractmethod
    def grammar(tools: Sequence[Tool], parallel: bool) -> str:
        """A grammar (llguidance's Lark) of answers that call one of these tools, or several."""

    @staticmethod
    @abstractmethod
    def written(calls: Sequence[Mapping[str, Any]]) -> str:
        """These calls as the model writes them: each has `name` and `arguments`, an object or what was none."""

    @classmethod
    def spoken(cls, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message whose calls stand in its content, for templates that would leave them out."""
        spoken = {key: value for key, value in message.items() if key != "tool_calls"}
        if calls := message.get("tool_calls"):
            parts = [message.get("content") or "", cls.written([call["function"] for call in calls])]
            spoken["content"] = "\n".join(part for part in parts if part)
        return spoken

    @abstractmethod
    def push(self, piece: str) -> list[Part]:
        """What can be shown now."""

    @abstractmethod
    def flush(self, cut: bool = False) -> list[Part]:
        """What was held back, at the end; `cut`: the answer was longer, and a call that was begun is no text."""


def parameters(tool: Tool) -> Mapping[str, Any]:
    """The JSON schema of a tool's arguments."""
    return tool["function"].get("parameters") or {"type": "object"}
