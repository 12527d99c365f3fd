"""A conversation at the terminal: its turns, and the commands that begin with a slash."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seventy.cli import _session as session
from seventy.cli.pull import get
from seventy.engine.llm import LLM
from seventy.engine.sampler import Sampling
from seventy.errors import SeventyError
from seventy.language import said, t

HELP = t(
    "/help                 this\n/system TEXT          set the system prompt; without TEXT, show it\n/set NAME "
    "VALUE       set temperature, top_k, max_tokens ...; without a name, show all\n/regen                answer the "
    "last question once more\n/clear                start anew\n/save FILE            write the conversation to a "
    "file\n/load FILE            go on with one that was saved\n/model NAME           go on with another model\n"
    '/exit                 leave (or Ctrl-D); Ctrl-C stops an answer\n"""                   begins and ends a text '
    "of several lines; so does a \\ at a line's end"
)
_SAME = {"/?": "/help", "/quit": "/exit", "/bye": "/exit", "/reset": "/clear", "/retry": "/regen"}

Message = dict[str, Any]


class Leave(Exception):
    """The person wants to leave."""


@dataclass(slots=True)
class Settings:
    """Sampling options and limits of answers."""

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    sampling: dict[str, Any] = field(default_factory=dict)

    def set(self, name: str, value: str) -> None:
        """Set one by its name. Raises SeventyError where there is none, or its value cannot be."""
        name = {"num_predict": "max_tokens"}.get(name, name).replace("-", "_")
        known = self.all()
        if name not in known:
            raise SeventyError("there is no setting {name!r}; /set shows them", name=name)
        if value in ("none", "off") and name in ("max_tokens", "seed"):
            number: float | None = None
        else:
            try:
                number = int(value) if name in _WHOLE else float(value)
            except ValueError:
                raise SeventyError("{name} is a number, not {value!r}", name=name, value=value) from None
        if name != "max_tokens":
            Sampling(**self.sampling | {name: number})
            self.sampling[name] = number
        elif number is not None and number < 1:
            raise SeventyError("max_tokens must be at least 1, not {value}", value=value)
        else:
            self.max_tokens = None if number is None else int(number)

    def all(self) -> Mapping[str, Any]:
        """Return every setting and its value."""
        sampling = Sampling(**self.sampling)
        return {"max_tokens": self.max_tokens} | {name: getattr(sampling, name) for name in Sampling.__slots__}


_WHOLE = {"max_tokens", "top_k", "penalty_window", "seed"}


class Conversation:
    """A conversation with a model, and the commands that act on it.

    `load` loads a model from its file, `path` is the first one's. The creator must close `llm`, which is the current
    model.
    """

    def __init__(self, path: Path, load: Callable[[Path], LLM], settings: Settings, system: str | None) -> None:
        self.path, self._load, self.settings = path, load, settings
        self.llm = load(path)
        self.messages: list[Message] = []
        self.system = system
        self.profile, self.first = session.machine_limit(self.llm.model)
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help, "/system": self._system, "/set": self._set, "/regen": self._regen,
            "/clear": self._clear, "/save": self._save, "/load": self._open, "/model": self._model,
            "/exit": self._exit,
        }  # fmt: skip
        self.commands = tuple(self._commands)

    def take(self, text: str) -> None:
        """Do what a line says: a command, or else a question. Raises Leave, and SeventyError with the reason."""
        word, _, rest = text.partition(" ")
        # "/etc/hosts: what is it?" is a question, and so is what begins with two slashes.
        if word.startswith("/") and not word.startswith("//") and "/" not in word[1:]:
            self._command(_SAME.get(word, word), rest.strip())
        elif text:
            self.ask(text.removeprefix("/") if text.startswith("//") else text)

    def _command(self, command: str, rest: str) -> None:
        if command not in self._commands:
            raise SeventyError(
                "{command} is no command; /help shows them, and // begins a text with a slash",
                command=command,
            )
        self._commands[command](rest)

    def ask(self, question: str, seed: bool = True) -> None:
        """Write the answer to a question. A question that fails is not kept in the conversation."""
        start = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*start, *self.messages, {"role": "user", "content": question}]
        settings = self.settings
        sampling = settings.sampling if seed else settings.sampling | {"seed": None}
        stream = self.llm.stream(
            messages, settings.max_tokens, stop=settings.stop, ignore_eos=settings.ignore_eos, **sampling
        )
        try:
            session.write(stream)
        except KeyboardInterrupt:
            stream.close()
            session.say(t("(stopped)"))
        if stream.completion is None:
            return
        self.messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": stream.completion.text},
        ]
        session.report(stream.completion, self.profile.read_bandwidth_gbs, self.llm.context)

    def _help(self, _: str) -> None:
        session.say(HELP)

    def _exit(self, _: str) -> None:
        raise Leave

    def _clear(self, _: str) -> None:
        self.messages = []

    def _system(self, text: str) -> None:
        if text:
            self.system = text
        session.say(t("system prompt: {system}", system=self.system) if self.system else t("there is no system prompt"))

    def _set(self, rest: str) -> None:
        # As ollama has it, too: /set parameter temperature 0.5, /set system ...
        rest = rest.removeprefix("parameter ")
        name, _, value = rest.partition(" ")
        if name == "system":
            return self._system(value.strip())
        if name and not value.strip():
            raise SeventyError("give {name} a value: /set {name} VALUE", name=name)
        if name:
            self.settings.set(name, value.strip())
        shown = {name: self.settings.all()[name]} if name in self.settings.all() else self.settings.all()
        session.say("\n".join(f"{each} {said(t('none')) if now is None else now}" for each, now in shown.items()))

    def _regen(self, _: str) -> None:
        if not self.messages:
            raise SeventyError("there is no question yet that could be answered once more")
        before = self.messages
        self.messages, (question, _answer) = before[:-2], before[-2:]
        try:
            # Another answer is wanted, so another seed.
            self.ask(question["content"], seed=False)
        except BaseException:
            self.messages = before
            raise

    def _save(self, file: str) -> None:
        path = _path(file, "/save FILE")
        saved = {"system": self.system, "messages": self.messages}
        new = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            if path.exists() and _read(path) is None:
                raise SeventyError("{path} is there and holds no conversation; take another name", path=path)
            new.write_text(json.dumps(saved, ensure_ascii=False, indent=1), encoding="utf-8")
            new.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise SeventyError("{path} cannot be written: {reason}", path=path, reason=error.strerror) from None
        session.say(t("{n} answers saved in {path}", n=len(self.messages) // 2, path=path))

    def _open(self, file: str) -> None:
        path = _path(file, "/load FILE")
        try:
            found = _read(path)
        except OSError as error:
            raise SeventyError("{path} cannot be read: {reason}", path=path, reason=error.strerror) from None
        if found is None:
            raise SeventyError("{path} holds no conversation; /save writes one", path=path)
        self.system, self.messages = found
        session.say(t("{n} answers loaded from {path}", n=len(self.messages) // 2, path=path))

    def _model(self, name: str) -> None:
        if not name:
            session.say(str(self.path))
            return
        path = get(name)
        # Memory seldom holds two: the old one leaves first, and comes back where the new one cannot be loaded.
        self.llm.close()
        try:
            self.llm = self._load(path)
        except BaseException:
            self.llm = self._load(self.path)
            raise
        self.path = path
        session.say_template(self.llm)


def _path(file: str, usage: str) -> Path:
    if not file:
        raise SeventyError("name a file: {usage}", usage=usage)
    path = Path(file)
    with contextlib.suppress(RuntimeError):
        # A user who is not there has no home; then it is a name as any other.
        path = path.expanduser()
    if not path.name:
        raise SeventyError("{file} is no file; {usage}", file=file, usage=usage)
    return path


def _read(path: Path) -> tuple[str | None, list[Message]] | None:
    """System prompt and messages of a saved conversation; None where the file is none. Raises OSError."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        system, messages = saved["system"], saved["messages"]
        texts = [message["content"] for message in messages]
        roles = [message["role"] for message in messages]
    except (ValueError, LookupError, TypeError):
        return None
    right = roles == ["user", "assistant"] * (len(roles) // 2) and all(isinstance(text, str) for text in texts)
    return (system, messages) if right and isinstance(system, str | None) else None
