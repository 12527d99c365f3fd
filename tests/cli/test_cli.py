import subprocess
import sys


def test_help_lists_commands() -> None:
    result = subprocess.run([sys.executable, "-m", "seventy", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "plan" in result.stdout
