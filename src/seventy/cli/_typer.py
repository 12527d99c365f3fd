"""What typer says by itself: it has no catalogue, so that its sentences are recognised and said anew."""

import math
import re
from typing import Any

import typer
from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from seventy.language import Message, catalogue, said, t

_FINITE = t("it must be a finite number")
_SAID = (
    _FINITE,
    t("No such command {name}."), t("No such command {name}. Did you mean {near}?"), t("No such option: {name}"),
    t("No such option: {name} Did you mean {near}?"), t("No such option: {name} (Possible options: {near})"),
    t("Option {name} requires an argument."), t("Option {name} does not take a value."), t("Missing command."),
    t("Missing argument {name}."), t("Missing option {name}."), t("Got unexpected extra argument ({name})"),
    t("Got unexpected extra arguments ({name})"), t("Got unexpected extra argument(s) ({name})"),
    t("Value {value} is not a valid {name}."), t("Invalid value for {name}: {reason}"), t("Invalid value: {reason}"),
    t("{value} is not a valid integer."), t("{value} is not a valid float."), t("{value} is not a valid int."),
    t("{value} is not a valid boolean."), t("{value} is not in the range {range}."),
    t("Input should be a valid number, unable to parse string as a number"),
    t("Input should be a valid integer, unable to parse string as an integer"),
    t("Input should be greater than or equal to {least}"), t("Input should be less than or equal to {most}"),
)  # fmt: skip
# What it takes from gettext itself (language.speak).
_ASKED = (
    t("Options"), t("Arguments"), t("Commands"), t("Error"), t("Aborted."), t("Aborted!"), t("[default: {}]"),
    t("[required]"), t("[env var: {}]"), t("(deprecated) "),
    t("Try [blue]'{command_path} {help_option}'[/] for help."),
)  # fmt: skip
_USAGE, _HELP = t("Usage: "), t("Show this message and exit.")
_OPTIONS, _COMMANDS = t("[OPTIONS]"), t("COMMAND [ARGS]...")
# Where rich may break a line: between Chinese characters too, which have no spaces, but not before 、 or after （.
_WORD = re.compile(
    r"\s*[“（《]*(?:[\u3005-\u9fff]|[^\s\u3001-\u9fff“”（），；：。、？！]+|\S)[”），；：。、？！》]*\s*"
)


class _FoldingColumns(Columns):
    """Texts whose words are broken where they are too long, not cut."""

    def __init__(self, renderables: Any = None, *given: Any, **more: Any) -> None:
        items = list(renderables or ())
        for item in items:
            if isinstance(item, Text):
                item.overflow = "fold"
        super().__init__(items, *given, **more)


class _WholeTable(Table):
    """A table whose columns before the last two, options' names, are not broken; others are where they are too long."""

    def add_row(self, *given: Any, **more: Any) -> None:
        super().add_row(*given, **more)
        for column in self.columns:
            column.overflow = "fold"
        for column in self.columns[:-2]:
            column.no_wrap = True


def recognised(text: str) -> str:
    """Return typer's sentence as a message, with values that may be sentences of its own; others as they are."""
    for template in sorted(_SAID, key=len, reverse=True):
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(template))
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return t(template, **{name: recognised(value) for name, value in found.groupdict().items()})
    return text


def describe(found: Any, lang: str) -> None:
    """Put the descriptions of a command, its parameters and its own commands into a language, and let none be cut."""
    words = catalogue(lang).gettext
    found.help = found.help and words(found.help)
    for parameter in found.params:
        if getattr(parameter, "help", None):
            parameter.help = words(parameter.help)
        if parameter.default is False:  # nobody types --no-debug
            parameter.secondary_opts = []
    found.options_metavar = words(_OPTIONS)
    if hasattr(found, "subcommand_metavar"):
        found.subcommand_metavar = words(_COMMANDS)
    usage, help_option, format_help = found.get_usage, found.get_help_option, found.format_help

    def format_help_whole(*given: Any) -> Any:
        from rich import _wrap
        from typer import rich_utils

        rich_utils.Table = _WholeTable  # type: ignore[misc]
        rich_utils.Columns = _FoldingColumns  # type: ignore[misc]
        _wrap.re_word = _WORD
        return format_help(*given)

    def help_in_language(context: Any) -> Any:
        option = help_option(context)
        if option is not None:
            option.help = said(Message(_HELP), lang)
        return option

    parse_args = found.parse_args

    def parse_finite(context: Any, given: list[str]) -> Any:
        rest = parse_args(context, given)
        for parameter in found.params:
            value = context.params.get(parameter.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(_FINITE, ctx=context, param=parameter)
        return rest

    found.parse_args = parse_finite
    found.format_help, found.get_help_option = format_help_whole, help_in_language
    found.get_usage = lambda context: usage(context).replace(_USAGE, words(_USAGE), 1)
    for each in getattr(found, "commands", {}).values():
        describe(each, lang)


def texts(found: Any) -> set[str]:
    """Return all descriptions of a command, of its parameters and its own commands."""
    own = {found.help, *(getattr(parameter, "help", None) for parameter in found.params)}
    return {text for text in own if text}.union(*map(texts, getattr(found, "commands", {}).values()))
