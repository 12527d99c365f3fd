"""70B-class language models on a cheap CPU-only machine."""

from typing import TYPE_CHECKING, Any

from seventy.errors import SeventyError

if TYPE_CHECKING:
    from seventy.engine.llm import LLM, Completion

__version__ = "0.1.0"
__all__ = ["LLM", "Completion", "SeventyError"]


def __getattr__(name: str) -> Any:
    # The engine takes a moment to import; `seventy plan` does without it.
    if name in ("LLM", "Completion"):
        from seventy.engine import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'seventy' has no attribute {name!r}")
