"""The packages that pyproject.toml declares are those that src imports."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Of extras, of what they need, and of an environment of the user's own.
OPTIONAL = {"mcp", "httpx2", "matplotlib", "llama_cpp", "ray", "cryptography"}


def imported() -> set[str]:
    """The packages that modules import, within functions too."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"seventy"}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=!~; ]", each)[0].replace("-", "_") for each in project["dependencies"]}
    assert imported() - OPTIONAL == declared
