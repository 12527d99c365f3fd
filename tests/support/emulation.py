"""A pytest plugin for scripts/emulate: keeps the tests of the ISA level that SEVENTY_ISA names.

Kernels are tuned for no CPU in particular, so that the emulated CPU, which compiles too slowly, finds again in the
cache what this one compiled.
"""

import os

import pytest
from llvmlite import binding

binding.get_host_cpu_name = lambda: "x86-64"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    level = os.environ["SEVENTY_ISA"]
    items[:] = [
        item for item in items if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        and item.callspec.params.get("isa") == level
    ]  # fmt: skip
