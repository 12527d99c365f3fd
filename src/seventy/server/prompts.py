"""Prompts as texts, token ids, and both in a list, as llama.cpp's server takes them."""

from typing import Any

from seventy.server.backend import Backend
from seventy.server.errors import ApiError

_MAX_ID = 1 << 31


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_ID


def prompts(given: Any, place: str, most: int) -> tuple[list[list[int | str]], bool]:
    """Read prompts as lists of texts and token ids; return them, and whether several were asked for.

    `place` is the field they stand in, `most` how many there may be. Raises ApiError 400.
    """
    if isinstance(given, list) and given and any(_is_id(part) for part in given):
        # Ids, and texts between them, of one prompt.
        return [_parts(given, place)], False
    if isinstance(given, list):
        if not 1 <= len(given) <= most:
            said = f"{place}: from 1 to {most} texts can be sent at once, not {len(given)}"
            raise ApiError(400, said, "invalid_value", place)
        return [_parts(one, place) for one in given], True
    return [_parts(given, place)], False


def _parts(prompt: Any, place: str) -> list[int | str]:
    if isinstance(prompt, dict) and isinstance(prompt.get("prompt_string"), str):
        if prompt.get("multimodal_data"):
            raise ApiError(400, "this model reads text only", "unsupported_content", f"{place}.multimodal_data")
        return [prompt["prompt_string"]]
    if isinstance(prompt, dict) and isinstance(prompt.get("content"), list):
        return [_text(prompt["content"], f"{place}.content")]
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt and all(_is_id(part) or isinstance(part, str) for part in prompt):
        return list(prompt)
    said = f"{place}: give a text, token ids, both in a list, or a list of such"
    raise ApiError(400, said, "invalid_value", place)


def _text(content: list[Any], place: str) -> str:
    """The text of parts as chats have them."""
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ApiError(400, "this model reads text only: parts of type text", "unsupported_content", place)
    return "".join(part["text"] for part in content)


def prompt_ids(backend: Backend, parts: list[int | str]) -> list[int]:
    """Return a prompt's token ids. Slow: not for the event loop."""
    llm = backend.llm
    if all(isinstance(part, int) for part in parts):
        return llm.prompt_ids([part for part in parts if isinstance(part, int)])
    llm.check_length(*(part for part in parts if isinstance(part, str)))
    if isinstance(parts[0], str):
        ids = llm.prompt_ids(parts[0]) if parts[0] else []
        parts = parts[1:]
    else:
        ids = []
    for part in parts:
        ids += [part] if isinstance(part, int) else llm.tokenize(part, special=True)
    return llm.prompt_ids(ids)
