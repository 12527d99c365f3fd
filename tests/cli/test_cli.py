import os
import shlex
import subprocess
import sys

import pytest

from seventy import cli
from seventy.version import __version__


def seventy(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "seventy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)


def test_help_lists_commands() -> None:
    result = seventy("--help")
    assert result.returncode == 0
    assert "plan" in result.stdout
    assert seventy("help").stdout == result.stdout
    assert seventy("help", "rm").stdout == seventy("models", "rm", "--help").stdout != result.stdout


def test_version() -> None:
    assert seventy("--version").stdout == f"seventy {__version__}\n"


def test_usage_names_the_command_that_was_typed() -> None:
    result = seventy("run", "--no-such-option", SEVENTY_PROGRAM="./seventy")
    assert result.returncode == 2
    assert "Usage: ./seventy run " in result.stderr and "python" not in result.stderr


def test_completion_knows_commands_and_options() -> None:
    names = {"SEVENTY_PROGRAM": "seventy", "_SEVENTY_COMPLETE": "complete_bash"}
    assert "predict" in seventy(**names, COMP_WORDS="seventy pre", COMP_CWORD="1").stdout
    assert "--temperature" in seventy(**names, COMP_WORDS="seventy run --temp", COMP_CWORD="2").stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("list", "models"),
        ("ls", "models"),
        ("show m.gguf", "models info m.gguf"),
        ("rm m.gguf", "models rm m.gguf"),
        ("--debug rm m.gguf", "--debug models rm m.gguf"),
        ("help", "--help"),
        ("help run", "run --help"),
        ("help show", "models info --help"),
        ("run list", "run list"),
        ("", ""),
    ],
)
def test_what_other_programs_call_it(typed: str, meant: str) -> None:
    assert cli._understood(typed.split()) == meant.split()


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are closed by a shell")
@pytest.mark.parametrize(("closed", "code"), [(">&-", 1), ("2>&-", 0), ("0<&-", 0), (">&- 2>&- 0<&-", 1)])
def test_closed_streams(closed: str, code: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # Without it nothing would be written before the interpreter ends.
    environment.pop("PYTHONUNBUFFERED", None)
    command = f"{shlex.quote(sys.executable)} -m seventy --version {closed}"
    ended = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True)
    assert ended.returncode == code
    assert ("stdout is closed" in ended.stderr) == (closed == ">&-")
    assert len(ended.stderr.splitlines()) <= 1
    assert ended.stdout.startswith("seventy") == (code == 0)
