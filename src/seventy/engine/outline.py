"""A model's program, written and never run: which tensors it has and what it reads, before anything is loaded."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from seventy import models
from seventy.cache.pages import Pages, check_kind
from seventy.cache.states import States
from seventy.engine.model_file import open_model
from seventy.graph.program import Program
from seventy.graph.weights import Weights
from seventy.kernels.pages import PAGE
from seventy.models.blocks.config import Config
from seventy.models.blocks.multi_token import with_block


def outline(metadata: Mapping[str, Any], weights: Weights, mtp: bool = False) -> Program:
    """Write the program of a model with this metadata, with its block of multi-token prediction where `mtp` says so.

    Raises SeventyError where the engine cannot run it.
    """
    config = models.find(metadata.get("general.architecture")).config(metadata)
    return _outline(metadata, with_block(config) if mtp else config, weights)


def _outline(metadata: Mapping[str, Any], config: Config, weights: Weights) -> Program:
    architecture = models.find(metadata.get("general.architecture"))
    specs = architecture.caches(config)
    program = Program(weights, Pages(specs, 1, "f16"), States(specs, 0), PAGE, 1, 1, config.epsilon, threads=1)
    architecture.build(program, config, weights)
    return program


def check(
    path: str | os.PathLike[str], kv: str, mtp: bool = False, assistant: str | os.PathLike[str] | None = None
) -> None:
    """Raise SeventyError for a model's file that the engine cannot run with such a cache, without loading it.

    With `mtp`, also where it cannot run its block of multi-token prediction; with `assistant`, that file beside it.
    """
    with contextlib.ExitStack() as files:
        source, architecture, config = open_model(files, path, mtp, assistant)
        check_kind(architecture.caches(config), kv)
        weights = Weights(source, runs=config.runs)
        try:
            _outline(source.metadata, config, weights)
            weights.refuse_unused()
        finally:
            weights.close()
