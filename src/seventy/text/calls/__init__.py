"""How models write their calls of tools: one class for each way, told apart by the chat template."""

from seventy.text.calls.base import CallStyle
from seventy.text.calls.harmony import Harmony
from seventy.text.calls.json_calls import Hermes, Llama3

# The first that knows the template; models whose template knows no tools are told of them in Hermes' words.
_STYLES: tuple[type[CallStyle], ...] = (Harmony, Llama3, Hermes)


def style(template: str) -> type[CallStyle]:
    """How a model with this chat template writes its calls."""
    return next((style for style in _STYLES if style.written_by(template)), Hermes)
