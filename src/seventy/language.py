"""What is said to people, in English and Chinese: gettext's catalogues in locale/, which scripts/messages makes.

English stands in the code: as a Message, which knows its template and values and so can be said in Chinese, too. Logs
and the API are English; who shows a text to a person at the terminal says `said(text)`.
"""

import functools
import gettext
import os
import re
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any, Protocol, runtime_checkable

LANGUAGES = ("en", "zh")
DOMAIN = "seventy"
_SETTINGS = ("SEVENTY_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
_spoken: list[str] = []


@runtime_checkable
class Spoken(Protocol):
    """What can be said in both languages: a message, and values of messages that are more than a text."""

    def into(self, lang: str) -> str: ...


class Message(str):
    """A text in English, made of a template with `{names}` and their values, which may be messages and errors, too.

    Of an error it keeps what it says alone: the error itself would keep all that its traceback refers to.
    """

    template: str
    plural: str | None
    values: dict[str, Any]

    def __new__(cls, template: str, /, _plural: str | None = None, **values: Any) -> "Message":
        one = _plural is None or values["n"] == 1
        values = {name: reason(value) if isinstance(value, BaseException) else value for name, value in values.items()}
        self = super().__new__(cls, (template if one else _plural or "").format(**values) if values else template)
        self.template, self.plural, self.values = template, _plural, values
        return self

    def __add__(self, other: str) -> "Message":
        return Message("{first}{second}", first=self, second=other)

    def __radd__(self, other: str) -> "Message":
        return Message("{first}{second}", first=other, second=self)

    def filled(self, **values: Any) -> "Message":
        """Return the same message with these values."""
        return Message(self.template, self.plural, **values)

    def into(self, lang: str) -> str:
        """Return the text in "en" or "zh"."""
        found = catalogue(lang)
        if not self.template:  # gettext has its header under it
            return ""
        text = found.gettext(self.template) if self.plural is None else (
            found.ngettext(self.template, self.plural, self.values["n"]))  # fmt: skip
        return text.format(**{name: _into(value, lang) for name, value in self.values.items()}) if self.values else text


def t(template: str, /, **values: Any) -> str:
    """Make a message, which is a str in English; Babel finds its template by this call."""
    return Message(template, **values)


def tn(one: str, many: str, /, n: int, **values: Any) -> str:
    """Make a message whose words depend on the number `n`."""
    return Message(one, many, n=n, **values)


def listed(texts: Iterable[str]) -> str:
    """Join texts as an enumeration."""
    return _joined(lambda first, second: t("{first}, {second}", first=first, second=second), texts)


def either(texts: Iterable[str]) -> str:
    """Join texts of which one is meant."""
    return _joined(lambda first, second: t("{first} or {second}", first=first, second=second), texts)


def sentences(texts: Iterable[str]) -> str:
    """Join texts that belong together, with semicolons."""
    return _joined(lambda first, second: t("{first}; {second}", first=first, second=second), texts)


def _joined(joined: Callable[[str, str], str], texts: Iterable[str]) -> str:
    return functools.reduce(joined, list(texts) or [""])


def beginning(text: str) -> str:
    """Return a message as far as its first semicolon, behind which stands what to do."""
    return _Beginning("{text}", text=text)


class _Beginning(Message):
    """Is cut in every language: each has its own semicolon."""

    def __new__(cls, template: str, /, _plural: str | None = None, **values: Any) -> "_Beginning":
        whole = Message(template, _plural, **values)
        self = str.__new__(cls, _SEMICOLON.split(whole)[0])
        self.template, self.plural, self.values = whole.template, whole.plural, whole.values
        return self

    def into(self, lang: str) -> str:
        return _SEMICOLON.split(super().into(lang))[0]


def said(text: object, lang: str | None = None) -> str:
    """Return a message, or what an error says, in the language that is spoken; any other text as it is."""
    return str(_into(text, lang or language()))


def reason(error: BaseException) -> str:
    """Return what an error says, without its number, as a text that `said` knows how to say."""
    if isinstance(error, OSError):
        inner = getattr(error, "reason", None)  # of urllib's errors
        if isinstance(inner, OSError):
            return reason(inner)
        if error.strerror or inner:
            return str(error.strerror or inner)
    if len(error.args) == 1 and isinstance(error.args[0], Message):
        return error.args[0]
    return str(error) or type(error).__name__


def _into(value: object, lang: str) -> object:
    if isinstance(value, BaseException):
        value = reason(value)
    if isinstance(value, Spoken):
        return value.into(lang)
    if isinstance(value, str) and (found := _NUMBERED.fullmatch(value)) and found[1] in _SYSTEM:
        return Message(found[1]).into(lang) if lang != "en" else value
    return value


_SEMICOLON = re.compile("; |；")
_NUMBERED = re.compile(r"(?:\[Errno -?\d+\] )?(.+)")
# What an operating system says of a failure (os.strerror), the usual ones.
_SYSTEM = frozenset({
    t("No such file or directory"), t("Permission denied"), t("Is a directory"), t("Not a directory"), t("File exists"),
    t("No space left on device"), t("Input/output error"), t("Read-only file system"), t("Too many open files"),
    t("File name too long"), t("Cannot allocate memory"), t("Invalid argument"), t("Address already in use"),
    t("Cannot assign requested address"), t("Connection refused"), t("Operation not permitted"),
    t("Disk quota exceeded"), t("Too many levels of symbolic links"), t("Invalid cross-device link"),
    t("Text file busy"), t("Name or service not known"), t("Temporary failure in name resolution"), t("timed out"),
    t("Connection reset by peer"), t("Network is unreachable"), t("No route to host"),
})  # fmt: skip


def language(wanted: str | None = None) -> str:
    """Return the language to speak, "en" or "zh": as asked for, else as chosen, else by SEVENTY_LANG or the locale."""
    if wanted is None and _spoken:
        return _spoken[0]
    text = wanted or next(filter(None, map(os.environ.get, _SETTINGS)), "")
    return "zh" if text.lower().startswith(("zh", "cmn", "chinese")) else "en"


def speak(wanted: str | None) -> str:
    """Choose what this process speaks; what typer and argument errors say, too. Return "en" or "zh"."""
    _spoken.clear()
    lang = language(wanted)
    _spoken.append(lang)
    os.environ["LANGUAGE"] = lang
    gettext.bindtextdomain(DOMAIN, _folder())
    gettext.textdomain(DOMAIN)
    return lang


@functools.cache
def catalogue(lang: str) -> gettext.NullTranslations:
    """Return a language's messages; none for English, which is in the code."""
    if lang == "en":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, _folder(), [lang])


def _folder() -> str:
    return str(files("seventy") / "locale")
