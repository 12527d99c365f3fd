"""What every way to write calls of tools has."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from seventy.text.parts import Part


class CallStyle(ABC):
    """How a family of models writes its calls, and, as an instance, a reader of those in one answer.

    A reader takes the pieces of an answer as they come. Calls of the named tools become CallStart and CallArguments;
    what is no call is text, late but whole.
    """

    # Tokens that must show in the answer's text, whatever the file says of them.
    markers: ClassVar[tuple[str, ...]] = ()
    # Whether templates of this style take one call in a message.
    one_call_each: ClassVar[bool] = False

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.calls = 0

    @staticmethod
    @abstractmethod
    def written_by(template: str) -> bool:
        """Whether models with this chat template write their calls so."""

    @staticmethod
    @abstractmethod
    def grammar(tools: Sequence[Mapping[str, Any]], parallel: bool) -> str:
        """A grammar (llguidance's Lark) of answers that call one of these tools, or several."""

    @abstractmethod
    def push(self, piece: str) -> list[Part]:
        """What can be shown now."""

    @abstractmethod
    def flush(self) -> list[Part]:
        """What was held back, at the end."""


def parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON schema of a tool's arguments."""
    return tool["function"].get("parameters") or {"type": "object"}
