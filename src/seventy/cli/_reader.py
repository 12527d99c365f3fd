"""Asking a person for text: a question of a chat, or what is piped in."""

import contextlib
import os
import select
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from seventy.cli import _session as session
from seventy.language import t

_QUOTES = '"""'
# After so long without a word on a pipe it is said what is waited for, or waited no more.
_PATIENCE_SECONDS = 5.0


class Reader:
    """Asks for questions, one after the other.

    On a terminal with line editing, whole pastes and the history of earlier chats, in a file that only its user may
    read (none where `remember` is false); else line by line from stdin. A line that ends with a backslash goes on, and
    what begins with three quotes goes on up to the next three.
    """

    def __init__(self, commands: Sequence[str], remember: bool = True) -> None:
        self._line: Callable[[str], str] = _plain_line
        if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
            self._line = _edited_line(commands, _history_file() if remember else None)

    def ask(self) -> str:
        """Return the next question. Raises EOFError at the end of input, KeyboardInterrupt at Ctrl-C."""
        text = self._line("> ")
        if text.lstrip().startswith(_QUOTES):
            text = text.lstrip().removeprefix(_QUOTES)
            while _QUOTES not in text:
                text += "\n" + self._line("... ")
            return text.replace(_QUOTES, "", 1).strip()
        while text.endswith("\\"):
            text = text[:-1] + "\n" + self._line("... ")
        return text.strip()


def _plain_line(prompt: str) -> str:
    if sys.stdin is None:
        raise EOFError
    # stdout is for answers alone.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()


def _edited_line(commands: Sequence[str], history: Path | None) -> Callable[[str], str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.output import create_output

    asked: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)) if history else InMemoryHistory(),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        enable_open_in_editor=True,
        output=None if sys.stdout.isatty() else create_output(stdout=sys.stderr),
    )
    return asked.prompt


def _history_file() -> Path | None:
    """The file of what was asked before; None where it cannot be written."""
    path = Path(platformdirs.user_state_dir("seventy")) / "chat_history"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        return path
    return None


def piped(wait: bool) -> str:
    """Return what a pipe or a file on stdin holds; nothing of a terminal, or where there is no stdin.

    A pipe may stay open without a word for ever, for some programs leave one to those they start: without `wait` it is
    left alone when nothing has come for a while.
    """
    stdin: Any = sys.stdin
    if stdin is None or stdin.isatty() or not _may_hold_text(stdin):
        return ""
    if not select.select([stdin], [], [], _PATIENCE_SECONDS)[0]:
        if not wait:
            session.say(t(
                "nothing came on stdin for {seconds:g} s: going on without it",
                seconds=_PATIENCE_SECONDS,
            ))
            return ""
        session.say(t("waiting for the prompt on stdin"))
    return str(stdin.read())


def _may_hold_text(stdin: Any) -> bool:
    """Whether it is a pipe, a file or a connection, and neither a device nor something that only looks like a file."""
    try:
        mode = os.fstat(stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
