"""A model's program, written and never run: which tensors it has and what it reads, before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from seventy import models
from seventy.cache.pages import Pages
from seventy.cache.states import States
from seventy.graph.outline import Outline
from seventy.graph.program import Program
from seventy.kernels.pages import PAGE


def outline(metadata: Mapping[str, Any], weights: Outline) -> Program:
    """Write the program of a model with this metadata. Raises SeventyError where the engine cannot run it."""
    architecture = models.find(metadata.get("general.architecture"))
    config = architecture.config(metadata)
    specs = architecture.caches(config)
    program = Program(weights, Pages(specs, 1, "f16"), States(specs, 0), PAGE, 1, 1, config.epsilon, threads=1)
    architecture.build(program, config, weights)
    return program
