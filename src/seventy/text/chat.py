"""How one talks with a model: its chat template, what that asks of conversations, and how answers are read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Lock
from typing import Any

from seventy.language import beginning, t
from seventy.text.calls.json_calls import Hermes
from seventy.text.conventions import Conventions
from seventy.text.fallbacks import TEMPLATES, fallback
from seventy.text.needs import Needs
from seventy.text.template import BrokenTemplate, ChatTemplate
from seventy.text.tokenizer import Tokenizer
from seventy.text.tools import describe


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text of a conversation; `changes` says what the template did not take and where it went."""

    text: str
    changes: tuple[str, ...]


class ChatFormat:
    """`given` is a template or the name of one (text/fallbacks.py) to take instead of the file's.

    A file without a template, or with one that is no program, gets that of its family; `note` then says so. Its first
    rendering tries what the template takes, which is some forty small renderings.
    """

    def __init__(self, metadata: Mapping[str, Any], tokenizer: Tokenizer, given: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._fallback = fallback(tokenizer.has_special)
        self._needs: Needs | None = None
        self._lock = Lock()
        self.note = ""
        # Whether to think where nobody says so; None is as the model does.
        self.think: bool | None = None
        own = metadata.get("tokenizer.chat_template")
        if given is not None:
            self._take(TEMPLATES.get(given, given))
        elif isinstance(own, str) and own.strip():
            self._take(own)
        else:
            self._fall_back(t("the file has no chat template"))

    def _take(self, source: str) -> None:
        self.source = source
        self.conventions = Conventions.of(source)
        self._tokenizer.show(self.conventions.markers)
        bos, eos = (
            "" if id is None else self._tokenizer.token_text(id)
            for id in (self._tokenizer.bos_id, self._tokenizer.eos_id)
        )
        self._template = ChatTemplate(source, bos, eos)

    def _fall_back(self, why: str) -> None:
        self._take(TEMPLATES[self._fallback])
        self.note = t(
            "{why}; {fallback} is taken (--chat-template for another: {templates}, or a file)",
            why=why, fallback=self._fallback, templates=", ".join(TEMPLATES),
        )

    def checked(self) -> "ChatFormat":
        """Itself, once the template was tried: `note` says what is the matter with it. SeventyError as of `needs`."""
        assert self.needs is not None
        return self

    @property
    def needs(self) -> Needs:
        """The template's requirements for conversations. Raises SeventyError if it accepts none."""
        with self._lock:
            if self._needs is None:
                try:
                    self._needs = Needs.of(self._render)
                except BrokenTemplate as error:
                    self._template.close()
                    self._fall_back(beginning(error.text))
                    self._needs = Needs.of(self._render)
                if self._needs.words:
                    self.conventions = replace(self.conventions, style=Hermes)
            return self._needs

    def thinking(self, wanted: bool | None) -> bool | None:
        """Return whether to think; without a wish, the default of models that can."""
        return self.think if wanted is None and self.conventions.thinks else wanted

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """Render a conversation to a prompt. `variables` are passed to the template."""
        needs = self.needs
        conventions = self.conventions
        if needs.words:
            messages, tools = describe(messages, tools), ()
        elif needs.spoken_calls:
            messages = [conventions.style.spoken(message) for message in messages]
        fitted = needs.fit(conventions.history(messages), tools)
        return Prompt(self._render(fitted.messages, fitted.tools, **(variables or {})), fitted.changes)

    def _render(
        self, messages: Sequence[Mapping[str, Any]], /, tools: Sequence[Mapping[str, Any]] | None, **variables: Any
    ) -> str:
        if self.conventions.functions:
            # Firefunction's tools: a text, beside the day.
            variables.setdefault("functions", json.dumps(tools, ensure_ascii=False, indent=4) if tools else "")
            variables.setdefault("datetime", datetime.now().strftime("%b %d %Y"))
        if "date_string" in self.source:
            # Else Llama 3's templates tell the model a day of 2024.
            variables.setdefault("date_string", datetime.now().strftime("%d %b %Y"))
        return self._template.render(messages, tools, **variables)

    def close(self) -> None:
        self._template.close()
