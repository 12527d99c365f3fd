"""What is said to people, in English and Chinese: gettext's catalogues in locale/, which scripts/messages makes.

English stands in the code: as a Message, which knows its template and values and so can be said in Chinese, too. Logs
and the API are English; who shows a text to a person at the terminal says `said(text)`.
"""

import functools
import gettext
import os
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

LANGUAGES = ("en", "zh")
DOMAIN = "seventy"
_SETTINGS = ("SEVENTY_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
_spoken: list[str] = []


class Message(str):
    """A text in English, made of a template with `{names}` and their values, which may be messages and errors, too."""

    template: str
    plural: str | None
    values: dict[str, Any]

    def __new__(cls, template: str, /, _plural: str | None = None, **values: Any) -> "Message":
        one = _plural is None or values["n"] == 1
        self = super().__new__(cls, (template if one else _plural or "").format(**values) if values else template)
        self.template, self.plural, self.values = template, _plural, values
        return self

    def __add__(self, other: str) -> "Message":
        return Message("{first}{second}", first=self, second=other)

    def __radd__(self, other: str) -> "Message":
        return Message("{first}{second}", first=other, second=self)

    def filled(self, **values: Any) -> "Message":
        """Return the same message with these values."""
        return Message(self.template, **values)

    def into(self, lang: str) -> str:
        """Return the text in "en" or "zh"."""
        found = catalogue(lang)
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
    return functools.reduce(lambda first, second: t("{first}, {second}", first=first, second=second), texts or [""])


def either(texts: Iterable[str]) -> str:
    """Join texts of which one is meant."""
    return functools.reduce(lambda first, second: t("{first} or {second}", first=first, second=second), texts or [""])


def sentences(texts: Iterable[str]) -> str:
    """Join texts that belong together, with semicolons."""
    return functools.reduce(lambda first, second: t("{first}; {second}", first=first, second=second), texts or [""])


def said(text: object, lang: str | None = None) -> str:
    """Return a message, or what an error says, in the language that is spoken; any other text as it is."""
    return str(_into(text, lang or language()))


def _into(value: object, lang: str) -> object:
    if isinstance(value, Message):
        return value.into(lang)
    if isinstance(value, str) and value in _SYSTEM:
        return Message(value).into(lang)
    if isinstance(value, OSError) and value.strerror:
        return _into(value.strerror, lang)
    if isinstance(value, BaseException) and len(value.args) == 1:
        return _into(value.args[0], lang) if isinstance(value.args[0], Message) else value
    return value


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
    """The language to speak, "en" or "zh": what is asked for, or was chosen, or SEVENTY_LANG or the locale says."""
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
    """The messages of a language; none for English, which stands in the code."""
    if lang == "en":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, _folder(), [lang])


def _folder() -> str:
    return str(files("seventy") / "locale")
