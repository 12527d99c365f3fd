"""What can go wrong in a way the user can mend."""

import errno
from typing import Any

from seventy.language import Message, t


class SeventyError(Exception):
    """Says what happened, with the values, and what to do next, in one sentence.

    `text` is a template whose `{names}` are filled in with `values`, so that it can be said in Chinese, too
    (language.said). The command line prints it without a traceback and exits with 1.
    """

    def __init__(self, text: str, /, **values: Any) -> None:
        self.text = text if isinstance(text, Message) and not values else Message(text, **values)
        super().__init__(self.text)


def trouble(error: BaseException) -> str | None:
    """Describe an error of the operating system in a sentence; return None for other errors."""
    if isinstance(error, MemoryError):
        return t("there is not enough memory; close other programs, or take a smaller model or --context")
    if isinstance(error, RuntimeError):
        # Python has no class of its own for it.
        full = "can't start new thread" in str(error)
        return t("the system starts no more threads; ulimit -u says how many may be") if full else None
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        hints = {
            errno.ENOSPC: t("; make room on the disk"),
            errno.EMFILE: t("; ulimit -n says how many files may be open"),
            errno.ENFILE: t("; too many files are open on this machine"),
            errno.EAGAIN: t("; ulimit -u limits processes"),
            errno.EBADF: t("; stdout is closed, or cannot be written to"),
            errno.EIO: t("; the disk may be failing"),
            errno.ENOMEM: t("; close other programs or take a smaller model"),
        }
        return t(
            "{where}{reason}{hint} (--debug shows where)",
            where=where, reason=error.strerror or error, hint=hints.get(error.errno or 0, ""),
        )
    return None
