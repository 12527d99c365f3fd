"""The command line: one module per command, named as the command.

A module holds either a function of its own name or, where the command has commands of its own, `app`. What people type
who know other programs of this kind is understood, too (_ALIASES).
Only the answer goes to stdout; everything else goes to stderr. An expected failure is one sentence and exit code 1.
--lang is taken out of what was typed, wherever it stands; descriptions of commands and options are English in the
modules, and put into the language that is spoken when the commands are built.
"""

import codecs
import contextlib
import importlib
import io
import os
import pkgutil
import sys
from typing import Any

import typer

from seventy.cli._typer import describe, recognised
from seventy.errors import SeventyError, trouble
from seventy.language import language, said, speak
from seventy.version import __version__

_ALIASES = {
    "list": ["models"], "ls": ["models"], "show": ["models", "info"], "info": ["models", "info"],
    "rm": ["models", "rm"], "remove": ["models", "rm"],
}  # fmt: skip


def build(wanted: str | None = None) -> typer.Typer:
    """Return the `seventy` command with every module of this package as a command, or with the `wanted` one alone.

    Importing the others takes as long as showing a model's metadata.
    """
    app = typer.Typer(
        name="seventy",
        help="70B-class language models on a cheap CPU-only machine.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        debug: bool = typer.Option(False, help="Show a traceback when something fails."),
        show_version: bool = typer.Option(
            False, "--version", "-V", help="Show which version this is.", is_eager=True, callback=_show_version
        ),
        lang: str = typer.Option(None, help="en or zh, at any command; else as SEVENTY_LANG or the locale says."),
    ) -> None:
        pass

    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    for name in [wanted] if wanted in names else names:
        module = importlib.import_module(f"{__name__}.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def command(wanted: str | None = None, lang: str | None = None) -> Any:
    """Return `build`'s command as click has it, described in "en" or "zh"."""
    found = typer.main.get_command(build(wanted))
    describe(found, lang or language())
    return found


def _language_of(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take --lang out of what was typed before `--`: what it says, and the rest."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for at, argument in enumerate(arguments[:end]):
        if argument.startswith("--lang="):
            return argument.removeprefix("--lang="), arguments[:at] + arguments[at + 1 :]
        if argument == "--lang" and at + 1 < end:
            return arguments[at + 1], arguments[:at] + arguments[at + 2 :]
    return None, arguments


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"seventy {__version__}")
        raise typer.Exit


def _understood(arguments: list[str]) -> list[str]:
    """What was typed, with `help COMMAND` and names of other programs' commands as ours have it."""
    at = next((i for i, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    before, command, after = arguments[:at], arguments[at : at + 1], arguments[at + 1 :]
    if command == ["help"]:
        return [*before, *_understood(after), "--help"]
    return [*before, *(_ALIASES.get(command[0], command) if command else []), *after]


def _open_standard() -> None:
    """Take the numbers of stdin, stdout and stderr where the shell closed them (`>&-`).

    Files opened later would get them, and what is printed would be written into those. Writing to a closed stdout is an
    error, as everywhere; without stderr the program goes on.
    """
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None or (number == 2 and _is_read_only(number)):
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, flags)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
                setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _is_read_only(number: int) -> bool:
    """Whether a descriptor cannot be written to: bash reads its script from a closed stderr's number, and leaves it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    except OSError:
        return False


def _write_anything() -> None:
    """Let no text end a command because the terminal's encoding lacks a character, or a file's name is no text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = codecs.lookup(stream.encoding).name == "utf-8"
            # A name that is no UTF-8 is written with the bytes it has.
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _drop_stdout() -> None:
    """Let what is still to be written to stdout go nowhere: the interpreter tries again when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(found: Any, arguments: list[str]) -> None:
    """Run a command; what is wrong with its arguments is said as typer does, in the language that is spoken."""
    parse = found.make_context

    def make_context(*given: Any, **more: Any) -> Any:
        try:
            return parse(*given, **more)
        except Exception as error:
            _translate(error)
            raise

    invoke = found.invoke

    def invoked(context: Any) -> Any:
        try:
            return invoke(context)
        except Exception as error:
            _translate(error)
            raise

    found.make_context, found.invoke = make_context, invoked
    # The script beside pyproject.toml says how it was called; `python -m seventy` is what it calls.
    found(args=arguments, prog_name=os.environ.get("SEVENTY_PROGRAM") or None)


def _translate(error: Any) -> None:
    if hasattr(error, "format_message"):
        text = said(recognised(error.format_message()))
        error.format_message = lambda: text


def main() -> None:
    _open_standard()
    _write_anything()
    lang, arguments = _language_of(sys.argv[1:])
    speak(lang)
    arguments = _understood(arguments)
    debug = "--debug" in arguments
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    wanted = None if completing else next((each for each in arguments if not each.startswith("-")), None)
    try:
        try:
            _run(command(wanted), arguments)
        finally:
            # Here, and not when the interpreter ends, it can be said that it could not be written.
            sys.stdout.flush()
    except SeventyError as error:
        if debug:
            raise
        print(f"seventy: {said(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our stdout (head, say) has gone: not an error, and nothing more can be written.
        _drop_stdout()
        sys.exit(0)
    except (OSError, MemoryError, RuntimeError) as error:
        sentence = None if debug else trouble(error)
        if sentence is None:
            raise
        _drop_stdout()
        print(f"seventy: {said(sentence)}", file=sys.stderr)
        sys.exit(1)
