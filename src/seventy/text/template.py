"""Messages to the text a model was trained on, by the chat template in its GGUF.

The template is a program written by a stranger. jinja2's sandbox keeps it from Python's insides, but not from
looping for ever or from doubling a text until the memory is full; so it runs in a process of its own (_render.py),
which has a limit of time and memory, can open no file, and is ended when it does not answer.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seventy.errors import SeventyError
from seventy.language import t
from seventy.text.worker import Worker

MAX_SECONDS = 10.0
MAX_SOURCE_CHARACTERS = 1 << 20
_SCRIPT = Path(__file__).with_name("_render.py")


class BrokenTemplate(SeventyError):
    """The template is no program at all, or its process cannot read it."""


class NoAnswer(SeventyError):
    """The template's process ended, or did not answer in time: by the template's fault, or the machine's."""


class ChatTemplate:
    """Starts its process at once and does not wait for it; `close` or the garbage collector ends it.

    Faults of the template are a SeventyError of `render`. Safe from several threads, one rendering at a time.
    """

    def __init__(self, source: str, bos: str, eos: str) -> None:
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise SeventyError(
                "the chat template has {source_count} characters, over {max_source_characters}; give another one "
                "(--chat-template)",
                source_count=len(source), max_source_characters=MAX_SOURCE_CHARACTERS,
            )
        self._source = source
        self._specials = {"bos_token": bos, "eos_token": eos}
        self._lock = threading.Lock()
        self._renderer: Worker | None = self._start()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Render the prompt. All values must be plain JSON data; keys of messages whose value is None are left out."""
        known = {
            "messages": [{key: value for key, value in message.items() if value is not None} for message in messages],
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self._specials,
            **variables,
        }
        try:
            line = json.dumps({"source": self._source, "variables": known}).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise SeventyError(
                "the messages are no plain data ({error}); give texts, numbers, lists, dicts",
                error=error,
            ) from None
        with self._lock:
            if self._renderer is None:
                self._renderer = self._start()
            try:
                answer = self._ask(self._renderer, line)
            except BaseException:
                # Also when the wait for it was interrupted: its answer would be taken for the next one's.
                self._renderer.end()
                self._renderer = None
                raise
        if "text" in answer:
            return answer["text"]
        kind, said = next(iter(answer.items()))
        said = " ".join(said.split())[:300]
        if kind == "refusal":
            raise SeventyError("the model's chat template does not take these messages: {said}", said=said)
        if kind == "syntax":
            raise BrokenTemplate(
                "the model's chat template is broken ({said}); give another one (--chat-template)",
                said=said,
            )
        raise SeventyError("the model's chat template failed ({said}); give another one (--chat-template)", said=said)

    def close(self) -> None:
        with self._lock:
            if self._renderer is not None:
                self._renderer.end()
                self._renderer = None

    def _start(self) -> Worker:
        return Worker(self, _SCRIPT, "render the chat template")

    def _ask(self, renderer: Worker, line: bytes) -> dict[str, str]:
        answer = renderer.ask(line + b"\n", MAX_SECONDS)
        if answer is None:
            if renderer.trouble:
                raise NoAnswer("the chat template was not asked: {trouble}", trouble=renderer.trouble)
            why = t(
                "did not end within {max_seconds:g} s",
                max_seconds=MAX_SECONDS,
            ) if renderer.late else t("ended its process")
            raise NoAnswer("the model's chat template {why}; give another one (--chat-template)", why=why)
        return answer
