"""Architectures: one file each, named as GGUF's `general.architecture` names it (- becomes _), found by import.

A file offers `config(metadata)`, the model's numbers; `caches(config)`, what each layer remembers; and
`build(graph, config, weights)`, which writes the program. What several of them share stands in `blocks`.
"""

import pkgutil
from importlib import import_module
from types import ModuleType

from seventy.errors import SeventyError


def architectures() -> list[str]:
    """List the supported architectures by their names in GGUF."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def find(architecture: object) -> ModuleType:
    """Return the module of an architecture. Raises SeventyError with a list of those supported."""
    if architecture not in architectures():
        raise SeventyError(
            "this engine does not know the architecture {architecture!r}; take a model of one that it knows: "
            "{architectures}",
            architecture=architecture, architectures=", ".join(architectures()),
        )
    return import_module(f"{__name__}.{str(architecture).replace('-', '_')}")
