import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from seventy.cli import _session as session
from seventy.cli._typer import describe
from seventy.errors import SeventyError
from seventy.language import language, t

app = typer.Typer(help="Run `seventy serve` as a service of this user (systemd).", no_args_is_help=True)
_UNIT = "seventy.service"
_KEY = "SEVENTY_API_KEY"


def _config() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def unit(arguments: list[str], key_file: Path | None) -> str:
    """Return the systemd unit that runs `seventy serve` with these arguments."""
    command = [sys.executable, "-m", "seventy", "serve", *arguments]
    # systemd reads % and $ itself, and has quotes of its own kind.
    words = " ".join(_quoted(word) for word in command)
    environment = f"EnvironmentFile={str(key_file).replace('%', '%%')}\n" if key_file else ""
    return (
        "[Unit]\n"
        "Description=seventy, language models on this machine\n"
        "Documentation=man:systemd.service(5)\n\n"
        "[Service]\n"
        f"ExecStart={words}\n"
        f"{environment}"
        # Where it was typed: names of files mean the same there; a user's services start at home.
        f"WorkingDirectory=-{str(Path.cwd()).replace('%', '%%')}\n"
        "Restart=on-failure\n"
        "RestartSec=10\n"
        "TimeoutStopSec=60\n"
        "NoNewPrivileges=yes\n\n"
        "[Install]\n"
        "WantedBy=default.target\n"
    )


def _quoted(word: str) -> str:
    if any(c in word for c in "\n\r\0"):
        raise SeventyError("{word!r} cannot be part of a service's command; leave line breaks out", word=word)
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if re.search(r"[^\w@/.,:=+%$-]", word) else word


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def install(
    context: typer.Context,
    model: session.ModelArgument = "smollm2",
    api_key: Annotated[str | None, typer.Option(help="The key clients must send; kept in a file only you read.")] = (
        None
    ),
) -> None:
    """Write the unit; further options are those of `seventy serve`."""
    if not sys.platform.startswith("linux"):
        raise SeventyError("services are written for systemd, on Linux; start `seventy serve` by what this system has")
    check_arguments([model, *context.args])
    if Path(model).suffix == ".gguf":
        model = str(Path(model).expanduser().absolute())
    folder = _config() / "systemd" / "user"
    key_file = _config() / "seventy" / "service.env" if api_key else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if api_key and key_file:
            key_file.parent.mkdir(parents=True, exist_ok=True)
            key_file.touch(mode=0o600)
            key_file.chmod(0o600)
            key_file.write_text(f"{_KEY}={shlex.quote(api_key)}\n")
        (folder / _UNIT).write_text(unit([model, *context.args], key_file))
    except OSError as error:
        raise SeventyError(
            "the unit cannot be written to {folder}: {reason}",
            folder=folder, reason=error.strerror,
        ) from None
    print(folder / _UNIT)
    session.say(
        t(
            "start it with: systemctl --user daemon-reload && systemctl --user enable --now seventy\nlet it run "
            "without you being logged in: loginctl enable-linger"
        )
    )


def check_arguments(arguments: list[str]) -> None:
    """Let serve's own parser say what is wrong with its options, now and not in the service's log."""
    from seventy.cli.serve import serve

    parser = typer.Typer()
    parser.command("serve")(serve)
    found = typer.main.get_command(parser)
    describe(found, language())
    found.make_context("seventy serve", list(arguments))


@app.command()
def status() -> None:
    """Show whether the service runs, and its last lines."""
    _system("systemctl", "--user", "status", "--no-pager", "seventy")


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with lines as they come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Show what the service has written."""
    _system("journalctl", "--user", "-u", "seventy", "-n", str(lines), "--no-pager", *(["-f"] if follow else []))


def _system(*command: str) -> None:
    """Run a program of systemd's in place of this one's end; its exit code is ours."""
    if shutil.which(command[0]) is None:
        raise SeventyError(
            "there is no {command} here, and the service is systemd's; start seventy serve by hand",
            command=command[0],
        )
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def uninstall() -> None:
    """Remove the unit and the key's file."""
    paths = [_config() / "systemd" / "user" / _UNIT, _config() / "seventy" / "service.env"]
    if not paths[0].exists():
        raise SeventyError("there is no service at {paths}", paths=paths[0])
    for path in paths:
        path.unlink(missing_ok=True)
    session.say(t("removed; stop it with: systemctl --user stop seventy && systemctl --user daemon-reload"))
