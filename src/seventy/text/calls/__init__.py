"""How models write their calls of tools: one class for each way, told apart by the chat template."""

from seventy.text.calls.base import CallStyle
from seventy.text.calls.gemma import Gemma4
from seventy.text.calls.harmony import Harmony
from seventy.text.calls.json_calls import Hermes, Llama3
from seventy.text.calls.named_json import DeepSeek, DeepSeekFenced, Kimi, Mistral, MistralList
from seventy.text.calls.pythonic import Lfm2
from seventy.text.calls.xml_calls import Dsml, Dsml4, FunctionElements, Glm, MiniMax

# The first that knows the template; models whose template knows no tools are told of them in Hermes' words.
STYLES: tuple[type[CallStyle], ...] = (
    Harmony, Gemma4, Dsml, Dsml4, DeepSeekFenced, DeepSeek, Kimi, MiniMax, MistralList, Mistral, Lfm2, Glm,
    FunctionElements, Llama3, Hermes,
)  # fmt: skip


def style(template: str) -> type[CallStyle]:
    """Return the style in which a model with this chat template writes its calls."""
    return next((style for style in STYLES if style.written_by(template)), Hermes)
