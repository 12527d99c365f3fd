"""A command whose system fails at one call ends in a sentence, or as if nothing had been."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "faults"


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts Linux's calls")
def test_some_of_the_calls_of_a_command(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(SCRIPT), "--every", "7", "--folder", str(tmp_path)]
    ended = subprocess.run([*command, "models"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-2000:]
