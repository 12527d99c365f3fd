"""The command line: one module per command, named as the command.

A module holds either a function of its own name or, where the command has commands of its own, `app`.
Only the answer goes to stdout; everything else goes to stderr. An expected failure is one sentence and exit code 1.
"""

import importlib
import os
import pkgutil
import sys

import typer

from seventy.errors import SeventyError


def build(wanted: str | None = None) -> typer.Typer:
    """The `seventy` command with every module of this package as a command, or with the `wanted` one alone.

    The others' imports take as long as showing what is in a model.
    """
    app = typer.Typer(
        name="seventy",
        help="70B-class language models on a cheap CPU-only machine.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(debug: bool = typer.Option(False, help="Show a traceback when something fails.")) -> None:
        pass

    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    for name in [wanted] if wanted in names else names:
        command = importlib.import_module(f"{__name__}.{name}")
        if hasattr(command, "app"):
            app.add_typer(command.app, name=name)
        else:
            app.command(name)(getattr(command, name))
    return app


def main() -> None:
    debug = "--debug" in sys.argv
    try:
        build(next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None))()
    except SeventyError as error:
        if debug:
            raise
        print(f"seventy: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our stdout (head, say) has gone: not an error, and nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
