"""70B-class language models on a cheap CPU-only machine."""

from typing import TYPE_CHECKING, Any

from seventy.errors import SeventyError
from seventy.version import __version__

if TYPE_CHECKING:
    from seventy.engine.llm import LLM, Completion

__all__ = ["LLM", "Completion", "SeventyError", "__version__"]


def __getattr__(name: str) -> Any:
    # The engine takes a moment to import; `seventy plan` does without it.
    if name in ("LLM", "Completion"):
        from seventy.engine import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'seventy' has no attribute {name!r}")
